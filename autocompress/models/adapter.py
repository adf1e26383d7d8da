"""What every transformer family offers to the methods that compress it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from autocompress.errors import UnsupportedError
from autocompress.shape import ModelShape, Order


class Modules(Protocol):
    """Modules that can be read and replaced by their dotted paths."""

    def get(self, path: str) -> nn.Module:
        """Return the module at ``path``."""

    def replace(self, path: str, module: nn.Module) -> None:
        """Put ``module`` at ``path``."""


@dataclass(frozen=True)
class ModelModules:
    """Those of a whole model; satisfies ``Modules``."""

    model: nn.Module

    def get(self, path: str) -> nn.Module:
        """Return the module at ``path``."""
        return self.model.get_submodule(path)

    def replace(self, path: str, module: nn.Module) -> None:
        """Put ``module`` at ``path``."""
        self.model.set_submodule(path, module)


@dataclass(frozen=True)
class LayerModules:
    """The parts of one layer that methods read and replace, with the dotted path of each below the layer.

    ``attention_norm`` and ``ffn_norm`` stand behind the sum of attention or feed-forward and the residual stream where
    the order is ``post``, and before attention and feed-forward where it is ``pre``.
    """

    layer: nn.Module
    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    ffn_in: str
    ffn_out: str
    ffn_norm: str
    head_width: int
    order: Order = "post"

    def get(self, path: str) -> nn.Module:
        """Return the module at ``path``."""
        return self.layer.get_submodule(path)

    def replace(self, path: str, module: nn.Module) -> None:
        """Put ``module`` at ``path``."""
        self.layer.set_submodule(path, module)

    @property
    def attention_linears(self) -> tuple[str, str, str, str]:
        """Paths of the four attention projections."""
        return self.query, self.key, self.value, self.output

    @property
    def ffn_linears(self) -> tuple[str, str]:
        """Paths of the two feed-forward projections."""
        return self.ffn_in, self.ffn_out

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Paths of the linears of each group that has a width of its own, as ``LayerShape.bits`` has them."""
        return (self.query, self.key, self.value), (self.output,), (self.ffn_in,), (self.ffn_out,)


class ModelAdapter(Protocol):
    """Reads and edits the models of one family, in place.

    A family whose models read images has no tokens to keep, no token table and no fewer positions: it refuses these.
    """

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads a model, e.g. ``AutoModelForImageClassification``."""

    def fold(self, model: nn.Module) -> None:
        """Let linears do what else would scale their outputs, and give those a bias that lack one: nothing changes.

        A model is folded before anything else is asked of it.
        """

    def shape(self, model: nn.Module) -> ModelShape:
        """Return what the model is, without its weights.

        Raises:
            UnsupportedError: The model has a part that the family's graph does not describe.
        """

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
        """Return the tensors that ``compiler.graph.weight_specs`` names for the model's shape."""

    def layers(self, model: nn.Module) -> list[LayerModules]:
        """Return the layers, first to last."""

    def keep_layers(self, model: nn.Module, kept: Sequence[int]) -> None:
        """Remove every layer whose index is not in ``kept``."""

    def keep_heads(self, model: nn.Module, layer: int, kept: Sequence[int]) -> None:
        """Keep the attention heads ``kept`` of one layer, in that order, and remove the others."""

    def keep_neurons(self, model: nn.Module, layer: int, kept: Sequence[int]) -> None:
        """Keep the feed-forward neurons ``kept`` of one layer, in that order, and remove the others."""

    def select_tokens(self, model: nn.Module, most_tokens: Sequence[int]) -> None:
        """Let each layer pass on so many tokens at most (``LayerShape.most_tokens``)."""

    def keep_hidden(self, model: nn.Module, channels: Sequence[int], units: Sequence[int]) -> None:
        """Keep the hidden channels ``channels`` and as many ``units`` between the head's two linears, in these orders.

        Hidden channels are those of the residual stream: of the embeddings (or of what they are projected to), of every
        norm, and of what attention, feed-forward and head read and write. The head's units are none of the stream, but
        there are as many of them.
        """

    def hidden_norms(self, model: nn.Module) -> list[nn.Module]:
        """Return the norms whose outputs are hidden channels, in the order in which they run."""

    def sum_norms(self, model: nn.Module) -> list[nn.Module]:
        """Return the norms that read the sums of attention and of feed-forward with the stream, two a layer."""

    def head_linears(self, model: nn.Module) -> tuple[str, ...]:
        """Return the paths of the head's linears: a dense layer where there is one, and the classifier."""

    def classifier_linear(self, model: nn.Module) -> nn.Module:
        """Return the last linear, which reads the units of the head and writes logits."""

    def keep_tokens(self, model: nn.Module, kept: Sequence[int]) -> None:
        """Keep the token ids ``kept`` (ascending); token ``kept[i]`` becomes id i, also where the config names it.

        Raises:
            UnsupportedError: The padding token is not kept, or the table is factorised or quantized already.
        """

    def keep_positions(self, model: nn.Module, count: int) -> None:
        """Keep the positions of the first ``count`` tokens: the model reads no longer documents."""

    def token_embedding(self, model: nn.Module) -> nn.Module:
        """Return the token table: the one with a row a token, if it is factorised."""

    def replace_token_embedding(self, model: nn.Module, module: nn.Module) -> None:
        """Put ``module`` in the place of the token table; a map that expands its rows stays."""


def refuse_of_images(what: str) -> NoReturn:
    """Raise the error of a model that reads images and is asked for what only text has."""
    raise UnsupportedError(
        f"A model that reads images is asked for {what}.",
        right="Its tokens are patches: it can have fewer layers, hidden channels, heads, neurons, tokens and bits.",
        next_step="Leave vocabulary_keep, embedding_rank, embedding_bits and positions out of search.space.",
    )
