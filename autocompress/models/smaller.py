"""Modules of which only some channels or rows are left; the others are gone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from autocompress.errors import UnsupportedError


def linear_of(module: nn.Module, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Linear:
    """Return a linear that keeps the given output or input channels; the others are gone."""
    if not isinstance(module, nn.Linear):
        raise _misplaced("pruning of weights that are already quantized", "pruning before quantization")
    weight, bias = module.weight.detach(), module.bias.detach()
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    smaller.weight, smaller.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return smaller.train(module.training)


def rows_of(module: nn.Module, rows: Sequence[int], padding: int) -> nn.Embedding:
    """Return a table of the given rows alone; ``padding`` is the new id of padding, where the table has one."""
    if not isinstance(module, nn.Embedding):
        raise _misplaced("fewer rows of a table that is quantized or factorised", "pruning before either")
    weight, padded = module.weight.detach()[list(rows)].clone(), module.padding_idx is not None
    smaller = nn.Embedding(len(rows), module.embedding_dim, padding_idx=padding if padded else None, _weight=weight)
    return smaller.train(module.training)


def columns_of(module: nn.Module, columns: Tensor) -> nn.Embedding:
    """Return a table that keeps the given channels of each row."""
    if not isinstance(module, nn.Embedding):
        raise _misplaced("fewer channels of a table that is quantized or factorised", "pruning before either")
    weight = module.weight.detach()[:, columns].clone()
    smaller = nn.Embedding(module.num_embeddings, len(columns), padding_idx=module.padding_idx, _weight=weight)
    return smaller.train(module.training)


def norm_of(module: nn.Module, channels: Tensor) -> nn.LayerNorm:
    """Return a norm of the given channels alone: mean and variance are theirs."""
    smaller = nn.LayerNorm(len(channels), eps=float(module.eps))  # type: ignore[arg-type]
    smaller.weight, smaller.bias = (
        nn.Parameter(getattr(module, name).detach()[channels]) for name in ("weight", "bias")
    )
    return smaller.train(module.training)


def _misplaced(what: str, right: str) -> UnsupportedError:
    return UnsupportedError(
        f"This model needs {what}.",
        right=f"Weights are pruned while they are floats: {right}.",
        next_step="Put the plan's steps in that order.",
    )
