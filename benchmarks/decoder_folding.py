"""Where factors of columns go in a Llama-like layer: into both norms, the value and the up projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.activations.folding import fold, fold_linear
from autocompress.compression.activations.norm_sites import NormSite
from autocompress.compression.rounding.grids import GridBits
from autocompress.compression.rounding.zfold import column_factors


@dataclass(frozen=True)
class FoldPlace:
    """Linears that read the same, and what gives it.

    Attributes:
        before: A norm, or a linear where there is one reader.
        readers: The linears.
        owners: Which output of ``before`` each input of the reader is made of; ``None``: the same one.
    """

    before: nn.Module
    readers: tuple[nn.Linear, ...]
    owners: Tensor | None = None

    def fold(self, bits: GridBits, costs: Tensor | None = None, *, whole_rows: bool) -> Tensor:
        """Fold what ``column_factors`` finds, in place; return what the readers' inputs are multiplied by (inputs,).

        Args:
            bits: Of the readers.
            costs: Of a squared error in each column; ``None``: all the same.
            whole_rows: See ``grid_of``.
        """
        weight = torch.cat([linear.weight.detach() for linear in self.readers])
        costs = torch.ones(weight.shape[1], dtype=torch.float64) if costs is None else costs
        factors = column_factors(weight, costs, bits, owners=self.owners, whole_rows=whole_rows).factors
        if isinstance(self.before, nn.Linear):
            fold_linear(self.before, *self.readers, 1.0 / factors, self.owners)
        else:
            fold(NormSite("norm", self.before, self.readers, ()), 1.0 / factors)
        return factors if self.owners is None else factors[self.owners]


def fold_places(layer: nn.Module) -> tuple[FoldPlace, ...]:
    """Return them front to back; query heads that share values share the factors of what they give."""
    attention, mlp = layer.self_attn, layer.mlp
    channels = torch.arange(attention.v_proj.out_features).reshape(-1, 1, attention.head_dim)
    return (
        FoldPlace(layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
        FoldPlace(
            attention.v_proj,
            (attention.o_proj,),
            channels.expand(-1, attention.num_key_value_groups, -1).flatten(),
        ),
        FoldPlace(layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        FoldPlace(mlp.up_proj, (mlp.down_proj,)),
    )
