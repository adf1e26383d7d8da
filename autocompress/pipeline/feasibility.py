"""What is reachable on a device, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from autocompress.compression.method import Space
from autocompress.cost import Budget, Cost, Figures
from autocompress.pipeline.candidates import SHAPELESS, every_plan
from autocompress.plan import CompressionPlan
from autocompress.predictors.predictor import Predictor
from autocompress.search.objective import violations
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class Reach:
    """One figure: what the space reaches, and what is allowed.

    Attributes:
        name: One of ``cost.LIMITS``; the figures below are in its unit.
        teacher: Predicted for the teacher.
        least: Smallest prediction in the space, as it is held against a limit.
        most: Largest.
        limit: In absolute units; ``None`` where the figure is free.
    """

    name: str
    teacher: float
    least: float
    most: float
    limit: float | None

    @property
    def reachable(self) -> bool:
        """Whether some candidate meets this limit, whatever it does to the others."""
        return self.limit is None or self.least <= self.limit


@dataclass(frozen=True)
class Feasibility:
    """What the space holds for a budget.

    Attributes:
        reaches: A row for each figure.
        limits: The absolute limit of each limited figure.
        fits: Whether each different shape of the space meets every limit; their order is the same on every device.
        nearest: The plan that exceeds the budget least.
        nearest_cost: Its predicted cost.
    """

    reaches: tuple[Reach, ...]
    limits: Figures
    fits: tuple[bool, ...]
    nearest: CompressionPlan
    nearest_cost: Cost

    @property
    def candidates(self) -> int:
        """How many different shapes there are in the space."""
        return len(self.fits)

    @property
    def inside(self) -> int:
        """How many of them meet every limit."""
        return sum(self.fits)

    @property
    def source(self) -> str:
        """Which predictor spoke, and whether it is calibrated."""
        return self.nearest_cost.source

    @property
    def feasible(self) -> bool:
        """Whether any candidate meets every limit."""
        return self.inside > 0

    def blocking(self) -> tuple[str, ...]:
        """Return the limits that nothing meets; where each can be met alone, those that the nearest one exceeds."""
        alone = tuple(reach.name for reach in self.reaches if not reach.reachable)
        if self.feasible or alone:
            return alone
        return tuple(name for name, share in violations(self.nearest_cost, self.limits).items() if share > 0)


def fitting(found: Mapping[str, Feasibility]) -> str:
    """Say how many shapes meet every limit of a device; of several, of each and of all of them."""
    (first, *others), shapes = found.values(), next(iter(found.values())).candidates
    if not others:
        return f"{first.inside} of {shapes} shapes"
    together = sum(map(all, zip(*(each.fits for each in found.values()), strict=True)))
    each = ", ".join(f"{reach.inside} for {name}" for name, reach in found.items())
    return f"Of {shapes} shapes {each}, {together} for all"


def assess(
    shape: ModelShape,
    space: Space,
    budget: Budget,
    predictor: Predictor,
    tokens: int,
    *,
    teacher: ModelShape | None = None,
) -> Feasibility:
    """Predict every candidate of the space and hold it against the budget.

    What changes no width is left at its first choice; so are the allocation and which layers stay, as importance is not
    measured yet, and a model's layers are alike in shape. Layers that choose for themselves are foreseen alike as well:
    the least and the most that they cost is what they cost alike.

    Args:
        shape: Of what students are made of.
        space: Of plans.
        budget: Limits, some relative to the teacher.
        predictor: Says what a shape costs.
        tokens: Of a document.
        teacher: Its shape, where students are made of another model.

    Raises:
        OutOfRangeError: The predictor does not know some of them.
    """
    whole = predictor.predict(teacher or shape, tokens).figures()
    limits = budget.resolve(whole)
    plans: dict[ModelShape, CompressionPlan] = {}
    alike = {name: getattr(space, name)[:1] for name in SHAPELESS}
    for _, drawn in every_plan(shape, replace(space, depth_selection=("uniform",), own_layers=(), **alike)):
        plans.setdefault(drawn.shape, drawn.plan)
    students = tuple(plans)
    costs = predictor.predict_many(students, tokens)
    for unknown in np.flatnonzero(~costs.known)[:1].tolist():
        predictor.predict(students[unknown], tokens)  # Raises, and says what is unknown.
    held = costs.held()
    over = [held[name] / limit - 1.0 for name, limit in limits.items()]
    excess = np.max(over, axis=0) if over else np.zeros(len(students))
    nearest = int(excess.argmin())
    return Feasibility(
        reaches=tuple(
            Reach(name, whole[name], float(values.min()), float(values.max()), limits.get(name))
            for name, values in held.items()
        ),
        limits=limits,
        fits=tuple((excess <= 0).tolist()),
        nearest=plans[students[nearest]],
        nearest_cost=costs[nearest],
    )
