"""FFN pruning: feed-forward neurons are removed, rows of the first linear and columns of the second with them.

Which neurons go was decided by ``order``: the first are the most important.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space, ask_each
from autocompress.compression.ranking.mask_search import check_keep, share_out
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class FfnStep:
    """Keep the first ``keep[i]`` neurons of layer i."""

    method: ClassVar[str] = "ffn"
    keep: tuple[int, ...]


STEP = FfnStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> FfnStep:
    """Choose the share of neurons that is kept, in whole multiples of ``space.align``, and how layers share them.

    With the allocation ``global`` no more neurons stay, the multiples of most importance in all layers.
    """
    shares = ask_each(trial, "ffn_keep", space.ffn_keep, space, len(shape.layers))

    def aligned(ffn: int, share: float) -> int:
        return min(ffn, max(1, round(ffn * share / space.align)) * space.align)

    keep = tuple(aligned(layer.ffn, share) for layer, share in zip(shape.layers, shares, strict=True))
    if space.own_layers:
        return FfnStep(keep)
    if trial.suggest_categorical("allocation", space.allocation) == "global" and space.layers:
        keep = share_out([layer.neurons for layer in space.layers], sum(keep), unit=space.align)
    return FfnStep(keep)


def reshape(shape: ModelShape, step: FfnStep) -> ModelShape:
    """Return ``shape`` with the kept neurons.

    Raises:
        ConfigError: A layer would keep none, or more than it has.
    """
    check_keep("neurons", step.keep, [layer.ffn for layer in shape.layers])
    pairs = zip(shape.layers, step.keep, strict=True)
    return replace(shape, layers=tuple(replace(layer, ffn=keep) for layer, keep in pairs))


def apply(model: nn.Module, step: FfnStep, context: Context) -> nn.Module:
    """Remove the neurons after the kept ones.

    Raises:
        ConfigError: As ``reshape``.
    """
    adapter = adapter_of(model)
    reshape(adapter.shape(model), step)
    for index, keep in enumerate(step.keep):
        adapter.keep_neurons(model, index, range(keep))
    return model
