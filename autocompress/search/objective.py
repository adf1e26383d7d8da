"""One candidate: drawn, foreseen, held against the budget, and only then scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias, TypeVar

from autocompress.cost import Cost, Figures
from autocompress.plan import CompressionPlan
from autocompress.shape import ModelShape

T = TypeVar("T")

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
class Deployment:
    """Where students shall run.

    Attributes:
        predict: Foresees what a shape costs there.
        limits: Absolute limit of each limited figure, in the figure's unit.
    """

    predict: Callable[[ModelShape], Cost]
    limits: Figures


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
        fleet: Every device by name, where there are several; ``predict`` and ``limits`` are the first's.
    """

    choices: Choices
    draw: Callable[[Params], CompressionPlan]
    reshape: Callable[[CompressionPlan], ModelShape]
    predict: Callable[[ModelShape], Cost]
    score: Callable[[CompressionPlan], Scored]
    limits: Figures
    rungs: Sequence[Callable[[CompressionPlan], Scored]] = ()
    fleet: Mapping[str, Deployment] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A plan with what is foreseen of it.

    Attributes:
        plan: What to do.
        shape: What comes of it.
        cost: Predicted, on the first device.
        violations: By what share each limit is exceeded (<= 0: inside); of a fleet, by ``device/limit``.
        costs: Predicted, on each device of a fleet.
    """

    plan: CompressionPlan
    shape: ModelShape
    cost: Cost
    violations: Mapping[str, float]
    costs: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def inside(self) -> bool:
        """Whether some device can take it: every limit of it is met."""
        each = [limits_of(name, self.violations) for name in self.costs] or [self.violations]
        return any(all(share <= 0 for share in shares.values()) for shares in each)

    @property
    def latency_ms(self) -> float:
        """Predicted median latency; of a fleet the ``mean_latency``."""
        return mean_latency(
            [cost.latency_p50_ms.value for cost in self.costs.values()] or [self.cost.latency_p50_ms.value]
        )


def mean_latency(latencies_ms: Sequence[float]) -> float:
    """Return the geometric mean: of one latency itself.

    Which of two models has the lower one does not depend on what each device's latencies are held against, be it the
    teacher's, a limit or a millisecond (Fleming & Wallace 1986); in an arithmetic mean the slowest device would decide.
    """
    return float(prod(latencies_ms) ** (1 / len(latencies_ms)))


def foresee(plan: CompressionPlan, objective: Objective) -> Candidate:
    """Return ``plan`` with its shape, its predicted cost, and how far that exceeds the limits."""
    shape = objective.reshape(plan)
    if not objective.fleet:
        cost = objective.predict(shape)
        return Candidate(plan, shape, cost, violations(cost, objective.limits))
    costs = {name: device.predict(shape) for name, device in objective.fleet.items()}
    each = {name: violations(cost, objective.fleet[name].limits) for name, cost in costs.items()}
    return Candidate(plan, shape, next(iter(costs.values())), by_device(each), costs)


def by_device(each: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """Return what is said of each device's limits as one mapping, by ``device/limit``."""
    return {f"{device}/{name}": value for device, values in each.items() for name, value in values.items()}


def limits_of(device: str, every: Mapping[str, T]) -> Mapping[str, T]:
    """Return what ``by_device`` put together of one device, by limit."""
    return {name.removeprefix(f"{device}/"): value for name, value in every.items() if name.startswith(f"{device}/")}


def violations(cost: Cost, limits: Figures) -> Mapping[str, float]:
    """Return, for each limit, by what share of it the prediction exceeds it (<= 0: inside)."""
    held = cost.held()
    return {name: held[name] / limit - 1.0 for name, limit in limits.items()}
