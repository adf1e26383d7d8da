"""FFN pruning: feed-forward neurons are removed, rows of the first linear and columns of the second with them.

Which neurons go is decided once a teacher, by ``importance.order_units``: the first are the most important.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
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
    """Choose the share of neurons that every layer keeps, in whole multiples of ``space.align``."""
    share = trial.suggest_categorical("ffn_keep", space.ffn_keep)

    def aligned(ffn: int) -> int:
        return min(ffn, max(1, round(ffn * share / space.align)) * space.align)

    return FfnStep(tuple(aligned(layer.ffn) for layer in shape.layers))


def reshape(shape: ModelShape, step: FfnStep) -> ModelShape:
    """Return ``shape`` with the kept neurons."""
    pairs = zip(shape.layers, step.keep, strict=True)
    return replace(shape, layers=tuple(replace(layer, ffn=keep) for layer, keep in pairs))


def apply(model: nn.Module, step: FfnStep, context: Context) -> nn.Module:
    """Remove the neurons after the kept ones."""
    adapter = adapter_of(model)
    for index, keep in enumerate(step.keep):
        adapter.keep_neurons(model, index, range(keep))
    return model
