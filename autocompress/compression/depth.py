"""Student depth: whole layers are removed.

Which ones stay follows from a map of their places, or from an order of importance that was measured on the teacher
(``ranking.layer_importance``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import LayerSelection, Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class DepthStep:
    """Keep the layers ``kept`` (0-based, ascending)."""

    method: ClassVar[str] = "depth"
    kept: tuple[int, ...]


STEP = DepthStep


def uniform(layers: int, keep: int) -> tuple[int, ...]:
    """Return ``keep`` of ``layers`` indices, evenly spaced, the last one always among them.

    This is ``tinybert`` where that is defined, and the map of DynaBERT's paper (Hou et al. 2020, section 2.2) at
    three quarters and half of 12 layers.

    >>> uniform(6, 3)
    (1, 3, 5)
    """
    return tuple((index + 1) * layers // keep - 1 for index in range(keep))


def tinybert(layers: int, keep: int) -> tuple[int, ...]:
    """Return g(m) = m * N / M for m = 1..M, counted from 1 (Jiao et al. 2020, section 3.1); M must divide N.

    >>> tinybert(12, 4)
    (2, 5, 8, 11)
    """
    if layers % keep:
        divisors = [str(number) for number in range(1, layers + 1) if layers % number == 0]
        raise _unavailable("tinybert", layers, keep, f"TinyBERT's map keeps {', '.join(divisors)} of {layers} layers.")
    return uniform(layers, keep)


def distilbert(layers: int, keep: int) -> tuple[int, ...]:
    """Return the layers that DistilBERT starts from: 6 of 12 (Sanh et al. 2019; the list is that of its code)."""
    if (layers, keep) != (12, 6):
        raise _unavailable("distilbert", layers, keep, "DistilBERT's map is known for 6 of 12 layers alone.")
    return 0, 2, 4, 7, 9, 11


def dynabert(layers: int, keep: int) -> tuple[int, ...]:
    """Return floor(i * N / M) for i = 0..M-1: DynaBERT's map as its code has it, which keeps the first layer.

    >>> dynabert(12, 9)
    (0, 1, 2, 4, 5, 6, 8, 9, 10)
    """
    return tuple(index * layers // keep for index in range(keep))


MAPS: dict[LayerSelection, Callable[[int, int], tuple[int, ...]]] = {
    "uniform": uniform,
    "tinybert": tinybert,
    "distilbert": distilbert,
    "dynabert": dynabert,
}
"""Selections that only ask how many layers there are; the others are those of ``ranking.layer_importance.ORDERS``."""


def select(
    selection: LayerSelection, layers: int, keep: int, orders: Mapping[LayerSelection, tuple[int, ...]]
) -> tuple[int, ...]:
    """Return the ``keep`` of ``layers`` layers that stay, ascending.

    Args:
        selection: How they are chosen.
        layers: Of the teacher.
        keep: 1 to ``layers``; all of them are kept however they are chosen.
        orders: Of a measured selection all layers, the first to go first.

    Raises:
        ConfigError: There are no such numbers of layers.
        UnsupportedError: The selection's map does not say which.
    """
    check_depth(keep, layers)
    if keep == layers:
        return tuple(range(layers))
    if selection in MAPS:
        return MAPS[selection](layers, keep)
    return tuple(sorted(orders[selection][layers - keep :]))


def check_depth(keep: int, layers: int) -> None:
    """Refuse a depth that ``layers`` layers cannot have.

    Raises:
        ConfigError: ``keep`` is not 1 to ``layers``.
    """
    if not 1 <= keep <= layers:
        raise ConfigError(
            f"A depth of {keep} is asked for.",
            right=f"The model has {layers} layers, of which 1 to {layers} can stay.",
            next_step="Correct search.space.depth.",
        )


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> DepthStep:
    """Choose a depth, and which layers it is made of."""
    depth = trial.suggest_categorical("depth", space.depth)
    selection: LayerSelection = trial.suggest_categorical("depth_selection", space.depth_selection)
    return DepthStep(select(selection, len(shape.layers), depth, space.layer_orders))


def reshape(shape: ModelShape, step: DepthStep) -> ModelShape:
    """Return ``shape`` with only the kept layers."""
    _check(step, len(shape.layers))
    return replace(shape, layers=tuple(shape.layers[index] for index in step.kept))


def apply(model: nn.Module, step: DepthStep, context: Context) -> nn.Module:
    """Remove the other layers."""
    adapter = adapter_of(model)
    _check(step, len(adapter.layers(model)))
    adapter.keep_layers(model, step.kept)
    return model


def _check(step: DepthStep, layers: int) -> None:
    check_depth(len(step.kept), layers)
    if list(step.kept) != sorted(set(step.kept).intersection(range(layers))):
        raise ConfigError(
            f"A plan keeps the layers {list(step.kept)}.",
            right=f"Kept layers ascend from 0 to {layers - 1} at most, each named once.",
            next_step="Correct the plan, or choose the model that it was made for.",
        )


def _unavailable(selection: LayerSelection, layers: int, keep: int, right: str) -> UnsupportedError:
    return UnsupportedError(
        f"The selection {selection!r} does not say which {keep} of {layers} layers stay.",
        right=right,
        next_step="Set search.space.depth to what it knows, or search.space.depth_selection to [uniform].",
    )
