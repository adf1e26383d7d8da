"""One candidate: drawn, foreseen, held against the budget, and only then scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from autocompress.cost import Cost, Figures
from autocompress.plan import CompressionPlan
from autocompress.shape import ModelShape

Params: TypeAlias = Mapping[str, Any]
"""One choice of each name."""
Choices: TypeAlias = Mapping[str, Sequence[Any]]
"""What may be chosen for each name: numbers, truth values or texts."""


@dataclass(frozen=True)
class Scored:
    """How good a student is.

    Attributes:
        value: Its metric on validation data, 0 to 1.
        standard_error: Of the value, over such samples of data.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class Objective:
    """What the search asks about a candidate. No function here reads a clock or a file.

    Attributes:
        choices: What there is to choose from; names with a single choice need not be there.
        draw: Makes a plan of what was chosen.
        reshape: Foresees the student's shape.
        predict: Foresees what a shape costs.
        score: Makes the student and returns how good it is; the one slow function.
        limits: Absolute limit of each limited figure, in the figure's unit.
        rungs: Cheaper ways to score, the cheapest first; see ``ladder``.
    """

    choices: Choices
    draw: Callable[[Params], CompressionPlan]
    reshape: Callable[[CompressionPlan], ModelShape]
    predict: Callable[[ModelShape], Cost]
    score: Callable[[CompressionPlan], Scored]
    limits: Figures
    rungs: Sequence[Callable[[CompressionPlan], Scored]] = ()


@dataclass(frozen=True)
class Candidate:
    """A plan with what is foreseen of it."""

    plan: CompressionPlan
    shape: ModelShape
    cost: Cost
    violations: Mapping[str, float]

    @property
    def inside(self) -> bool:
        """Whether every limit is met."""
        return all(share <= 0 for share in self.violations.values())


def foresee(plan: CompressionPlan, objective: Objective) -> Candidate:
    """Return ``plan`` with its shape, its predicted cost, and how far that exceeds the limits."""
    shape = objective.reshape(plan)
    cost = objective.predict(shape)
    return Candidate(plan, shape, cost, violations(cost, objective.limits))


def violations(cost: Cost, limits: Figures) -> Mapping[str, float]:
    """Return, for each limit, by what share of it the prediction exceeds it (<= 0: inside)."""
    held = cost.held()
    return {name: held[name] / limit - 1.0 for name, limit in limits.items()}
