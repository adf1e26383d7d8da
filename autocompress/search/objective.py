"""One candidate: drawn, foreseen, held against the budget, and only then scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autocompress.cost import Cost, Figures
from autocompress.plan import CompressionPlan, Suggest
from autocompress.shape import ModelShape


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
        draw: Makes a plan of a trial's choices.
        reshape: Foresees the student's shape.
        predict: Foresees what a shape costs.
        score: Makes the student and returns how good it is; the one slow function.
        limits: Absolute limit of each limited figure, in the figure's unit.
    """

    draw: Callable[[Suggest], CompressionPlan]
    reshape: Callable[[CompressionPlan], ModelShape]
    predict: Callable[[ModelShape], Cost]
    score: Callable[[CompressionPlan], Scored]
    limits: Figures


@dataclass(frozen=True)
class Candidate:
    """A plan with what is foreseen of it."""

    plan: CompressionPlan
    shape: ModelShape
    cost: Cost


def foresee(plan: CompressionPlan, objective: Objective) -> Candidate:
    """Return ``plan`` with its shape and predicted cost."""
    shape = objective.reshape(plan)
    return Candidate(plan, shape, objective.predict(shape))


def violations(cost: Cost, limits: Figures) -> Mapping[str, float]:
    """Return, for each limit, by what share of it the prediction exceeds it (<= 0: inside)."""
    held = cost.held()
    return {name: held[name] / limit - 1.0 for name, limit in limits.items()}
