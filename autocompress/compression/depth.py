"""Student depth: whole layers are removed.

Source: DistilBERT (Sanh et al. 2019) starts a half-deep student from the teacher's own layers; the uniform layer map
g(m) = m * N / M, which keeps the last layer, is TinyBERT's (Jiao et al. 2020, section 3.1).
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
class DepthStep:
    """Keep the layers ``kept`` (0-based, ascending)."""

    method: ClassVar[str] = "depth"
    kept: tuple[int, ...]


STEP = DepthStep


def uniform(layers: int, keep: int) -> tuple[int, ...]:
    """Return ``keep`` of ``layers`` indices, evenly spaced, the last one always among them.

    >>> uniform(6, 3)
    (1, 3, 5)
    """
    return tuple((index + 1) * layers // keep - 1 for index in range(keep))


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> DepthStep:
    """Choose a depth among those of ``space`` that the model has."""
    depth = trial.suggest_categorical("depth", space.depth)
    return DepthStep(uniform(len(shape.layers), min(depth, len(shape.layers))))


def reshape(shape: ModelShape, step: DepthStep) -> ModelShape:
    """Return ``shape`` with only the kept layers."""
    return replace(shape, layers=tuple(shape.layers[index] for index in step.kept))


def apply(model: nn.Module, step: DepthStep, context: Context) -> nn.Module:
    """Remove the other layers."""
    adapter_of(model).keep_layers(model, step.kept)
    return model
