"""Order: each layer's heads and neurons are put in order of importance, so that what is kept is the first of them.

It changes no output and no shape, and comes first: importance is the teacher's, measured once a criterion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, get_args

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.compression.ranking.fisher import block_fisher, fisher, taylor
from autocompress.compression.ranking.importance import LayerRanking, activation, combined, l2p, magnitude, reorder
from autocompress.compression.ranking.obs import kron_obs, obs
from autocompress.errors import ConfigError
from autocompress.plan import Criterion, HeadCriterion, Suggest
from autocompress.shape import ModelShape

Rank: TypeAlias = Callable[[nn.Module, Sequence[Any]], tuple[LayerRanking, ...]]
"""(model, calibration batches) -> the ranking of each layer's units."""

CRITERIA: dict[Criterion, Rank] = {
    "magnitude": magnitude,
    "l2p": l2p,
    "activation": activation,
    "taylor": taylor,
    "fisher": fisher,
    "block_fisher": block_fisher,
    "obs": obs,
    "kron_obs": kron_obs,
}
"""``l2p`` says nothing of heads."""


@dataclass(frozen=True)
class OrderStep:
    """The criterion of heads and that of neurons, keys of ``CRITERIA``."""

    method: ClassVar[str] = "order"
    heads: HeadCriterion
    neurons: Criterion


STEP = OrderStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> OrderStep:
    """Choose both criteria."""
    heads: HeadCriterion = trial.suggest_categorical("heads_order", space.heads_order)
    neurons: Criterion = trial.suggest_categorical("neurons_order", space.neurons_order)
    return OrderStep(heads, neurons)


def reshape(shape: ModelShape, step: OrderStep) -> ModelShape:
    """Return ``shape`` itself: order changes no width."""
    return shape


def apply(model: nn.Module, step: OrderStep, context: Context) -> nn.Module:
    """Reorder the units, which must be those of the teacher.

    Raises:
        ConfigError: A criterion is unknown, or does not rank such units, or needs labels where there are none.
    """
    _check(step.heads, get_args(HeadCriterion))
    _check(step.neurons, tuple(CRITERIA))
    heads, neurons = context.rankings(step.heads), context.rankings(step.neurons)
    return reorder(model, combined(heads, neurons))


def _check(criterion: str, known: tuple[str, ...]) -> None:
    if criterion not in known:
        raise ConfigError(
            f"Units are to be ordered by {criterion!r}.",
            right=f"Criteria are {', '.join(known)}.",
            next_step="Correct search.space.heads_order or neurons_order, or the plan.",
        )


class Rankings:
    """The rankings of one teacher, each made once.

    Args:
        teacher: In eval mode.
        batches: Returns the calibration batches, the same ones at every call.
    """

    def __init__(self, teacher: nn.Module, batches: Callable[[], Sequence[Any]]) -> None:
        self._teacher, self._batches = teacher, batches
        self._found: dict[str, tuple[LayerRanking, ...]] = {}

    def __call__(self, criterion: Criterion) -> tuple[LayerRanking, ...]:
        """Return each layer's ranking.

        Raises:
            ConfigError: The criterion needs labels and the batches have none.
        """
        if criterion not in self._found:
            self._found[criterion] = CRITERIA[criterion](self._teacher, self._batches())
        return self._found[criterion]
