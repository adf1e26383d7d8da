"""Head pruning: attention heads are removed, rows of Q, K, V and columns of the output projection with them.

Which heads go is decided once a teacher, by ``importance.order_units``: the first are the most important.
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
class HeadStep:
    """Keep the first ``keep[i]`` heads of layer i."""

    method: ClassVar[str] = "heads"
    keep: tuple[int, ...]


STEP = HeadStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> HeadStep:
    """Choose the share of heads that every layer keeps, at least one."""
    share = trial.suggest_categorical("heads_keep", space.heads_keep)
    return HeadStep(tuple(max(1, round(layer.heads * share)) for layer in shape.layers))


def reshape(shape: ModelShape, step: HeadStep) -> ModelShape:
    """Return ``shape`` with the kept heads."""
    pairs = zip(shape.layers, step.keep, strict=True)
    return replace(shape, layers=tuple(replace(layer, heads=keep) for layer, keep in pairs))


def apply(model: nn.Module, step: HeadStep, context: Context) -> nn.Module:
    """Remove the heads after the kept ones."""
    adapter = adapter_of(model)
    for index, keep in enumerate(step.keep):
        adapter.keep_heads(model, index, range(keep))
    return model
