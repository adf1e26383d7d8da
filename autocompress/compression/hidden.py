"""Hidden width: channels of the residual stream are removed, in embeddings, norms, all layers and the head at once.

Which channels go is decided once a teacher, by ``channel_importance.order_hidden``: the first are the most important.
Norms then run over the kept channels alone. Heads keep their number and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class HiddenStep:
    """Keep the first ``keep`` hidden channels."""

    method: ClassVar[str] = "hidden"
    keep: int


STEP = HiddenStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> HiddenStep:
    """Choose the share of channels."""
    return HiddenStep(width(shape, trial.suggest_categorical("hidden_keep", space.hidden_keep), space.align))


def width(shape: ModelShape, share: float, align: int) -> int:
    """Return how many channels a share (0 to 1) is: whole multiples of ``align``, all of them at 1.

    Where embeddings are projected, the width of the embeddings is passed over for the next multiple: see ``reshape``.
    """
    keep = max(1, round(shape.hidden * share / align)) * align
    keep += align if _loses_projection(shape, keep) else 0
    return shape.hidden if share == 1 else min(shape.hidden, keep)


def reshape(shape: ModelShape, step: HiddenStep) -> ModelShape:
    """Return ``shape`` with the kept channels; embeddings that are projected keep their width.

    Raises:
        ConfigError: Nothing is kept, or more than there is.
        UnsupportedError: Embeddings are projected, and would be as wide as what they are projected to: a shape of equal
            widths has no projection.
    """
    if not 1 <= step.keep <= shape.hidden:
        raise ConfigError(
            f"A plan keeps {step.keep} hidden channels.",
            right=f"The model has {shape.hidden}, of which 1 to {shape.hidden} can stay.",
            next_step="Correct the plan, or choose the model that it was made for.",
        )
    if _loses_projection(shape, step.keep):
        raise UnsupportedError(
            f"A plan keeps {step.keep} hidden channels, the width of the embeddings that are projected to them.",
            right=f"Embeddings of {shape.embedding} channels are projected to more or fewer than that.",
            next_step=f"Keep {step.keep - 1} or {step.keep + 1}.",
        )
    return shape.with_hidden(step.keep)


def apply(model: nn.Module, step: HiddenStep, context: Context) -> nn.Module:
    """Remove the channels after the kept ones."""
    adapter = adapter_of(model)
    before = adapter.shape(model)
    if reshape(before, step) != before:
        adapter.keep_hidden(model, range(step.keep), range(step.keep))
    return model


def _loses_projection(shape: ModelShape, keep: int) -> bool:
    return keep == shape.embedding != shape.hidden
