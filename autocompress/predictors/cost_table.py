"""Costs of many shapes as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
import numpy.typing as npt

from autocompress.cost import LIMITS, Cost, Estimate

Array = npt.NDArray[np.float64]
VALUE, LOW, HIGH = range(3)


@dataclass(frozen=True, eq=False)
class CostTable(Sequence[Cost]):
    """A sequence of costs.

    Attributes:
        figures: For each of ``cost.FIGURES``, and energy where it is known, (shapes x 3): value, low and high end.
        known: (shapes,), whether the predictor was fitted on such shapes; its costs of others mean nothing.
        calibrated: As of ``cost.Cost``.
        source: As of ``cost.Cost``.
    """

    figures: Mapping[str, Array]
    known: npt.NDArray[np.bool_]
    calibrated: bool
    source: str

    @classmethod
    def of(cls, costs: Iterable[Cost]) -> Self:
        """Return a table of ``costs`` of one predictor (at least one)."""
        every = tuple(costs)
        figures = {
            name: np.array([[each.value, each.low, each.high] for each in (getattr(cost, name) for cost in every)])
            for name in LIMITS
            if getattr(every[0], name) is not None
        }
        return cls(figures, np.ones(len(every), dtype=bool), every[0].calibrated, every[0].source)

    def held(self) -> dict[str, Array]:
        """Return (shapes,) of what a budget is held against, by the names of ``LIMITS``: see ``Cost.held``."""
        end = HIGH if self.calibrated else VALUE
        return {name: values[:, end] for name, values in self.figures.items()}

    def __len__(self) -> int:
        return len(self.known)

    @overload
    def __getitem__(self, index: int) -> Cost: ...

    @overload
    def __getitem__(self, index: slice) -> CostTable: ...

    def __getitem__(self, index: int | slice) -> Cost | CostTable:
        """Return the cost of one shape, or the table of a slice of them."""
        figures = {name: values[index] for name, values in self.figures.items()}
        if isinstance(index, slice):
            return CostTable(figures, self.known[index], self.calibrated, self.source)
        estimates = {name: Estimate(*values.tolist()) for name, values in figures.items()}
        return Cost(**estimates, calibrated=self.calibrated, source=self.source)
