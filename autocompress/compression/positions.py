"""Positions that no document of the task reaches are removed: nothing is lost but the reading of longer ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError
from autocompress.models.adapter import refuse_of_images
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class PositionsStep:
    """Keep the positions of the first ``keep`` tokens."""

    method: ClassVar[str] = "positions"
    keep: int


STEP = PositionsStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> PositionsStep:
    """Return how many the space leaves, the same for every candidate; of an image all."""
    if shape.pixels is not None:
        return PositionsStep(shape.positions)
    asked = space.max_tokens if space.positions == "task" else 0
    return PositionsStep(min(asked or shape.positions, shape.positions))


def reshape(shape: ModelShape, step: PositionsStep) -> ModelShape:
    """Return ``shape`` with so many positions.

    Raises:
        ConfigError: None is kept, or more than there are.
        UnsupportedError: The model reads images, and some would be gone.
    """
    if shape.pixels is not None and step.keep != shape.positions:
        refuse_of_images(f"{step.keep} positions")
    if not 1 <= step.keep <= shape.positions:
        raise ConfigError(
            f"{step.keep} positions are asked for.",
            right=f"The model has {shape.positions}; at least one stays.",
            next_step="Correct keep in the plan's positions step.",
        )
    return replace(shape, positions=step.keep)


def apply(model: nn.Module, step: PositionsStep, context: Context) -> nn.Module:
    """Remove the others.

    Raises:
        ConfigError: As ``reshape``.
    """
    adapter = adapter_of(model)
    shape = adapter.shape(model)
    if reshape(shape, step) != shape:
        adapter.keep_positions(model, step.keep)
    return model
