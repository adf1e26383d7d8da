"""Say how far off a prediction may be, from samples that the fit did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, inf
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COVERAGE = 0.9
"""Share of measured values that the intervals should hold."""
FEWEST_SAMPLES = 9
"""With fewer no finite interval has that coverage: the smallest n with ceil(0.9 (n + 1)) <= n."""


@dataclass(frozen=True)
class Conformal:
    """Intervals that are as wide everywhere, as a factor, or as wide as a sample is difficult.

    Attributes:
        half_width: In logarithms, for a difficulty of one; infinite where samples are too few for the coverage.
        coverage: Share of measured values that the intervals should hold.
        samples: How many left out errors the width rests on.
    """

    half_width: float
    coverage: float
    samples: int

    @property
    def factor(self) -> float:
        """The upper end over the predicted value, for a difficulty of one."""
        return exp(self.half_width)

    def bounds(self, values: Array, difficulty: Array | None = None) -> tuple[Array, Array]:
        """Return the ends (samples,) of the intervals about the predictions ``values`` (samples,).

        Args:
            values: Predictions > 0.
            difficulty: (samples,) > 0, of the same measure that the fit was given; all one, if it was given none.
        """
        factor = np.exp(self.half_width * (np.ones(1) if difficulty is None else difficulty))
        return values / factor, values * factor

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; an infinite width, which JSON lacks, is ``None``."""
        return {**asdict(self), "half_width": None if self.half_width == inf else self.half_width}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Conformal:
        """Read what ``to_dict`` wrote."""
        width = data["half_width"]
        return cls(inf if width is None else width, data["coverage"], data["samples"])


def conformal(
    out_of_fold: Array,
    measured: Array,
    *,
    coverage: float = COVERAGE,
    counts: npt.NDArray[np.bool_] | None = None,
    difficulty: Array | None = None,
) -> Conformal:
    """Return intervals from errors on samples that were left out of the fit.

    Cross-conformal prediction (Vovk 2015) with intervals of one width: the ``coverage * (n + 1)``-th smallest of n
    errors holds that share of new ones, on average over samples that are exchangeable with them (Vovk, Gammerman,
    Shafer 2005, section 2.3). Where this is no whole number, the errors of both neighbouring ranks are weighed: that
    holds ``coverage`` or, as large errors are rarer than small ones, a little more, while rounding the rank up would
    hold up to 1 / (n + 1) more. Left-out fits saw fewer samples than the final one, which errs to the same side.

    Args:
        out_of_fold: (repeats x samples) > 0, what fits without each sample say of it; a sample's error is the median
            over repeats.
        measured: (samples,) > 0.
        coverage: Between 0 and 1. With fewer samples than it needs the width is infinite.
        counts: (samples,), which are drawn as new ones will be; the errors of chosen ones, such as corners, say
            nothing of these. All, if not given.
        difficulty: (samples,) > 0, what a sample's error is to be measured by. All one, if not given.
    """
    errors = np.median(np.abs(np.log(measured / out_of_fold)), axis=0)
    if difficulty is not None:
        errors = errors / difficulty
    kept = np.sort(errors if counts is None else errors[counts])
    rank = coverage * (len(kept) + 1)
    width = float(np.interp(rank, np.arange(1, len(kept) + 1), kept)) if rank <= len(kept) + 1e-9 else inf
    return Conformal(width, coverage, len(kept))


@dataclass(frozen=True)
class HeldOut:
    """Errors on samples that were left out of the fit, as shares of the measured value.

    Attributes:
        mape: Mean absolute error.
        worst: Largest absolute error.
        within_10_percent: Share of the samples with an absolute error of at most 0.1.
        samples: How many samples were left out, one at a time.
    """

    mape: float
    worst: float
    within_10_percent: float
    samples: int


def held_out(predicted: Array, measured: Array) -> HeldOut:
    """Return the errors of ``predicted`` (samples,), each from a fit that left out that sample."""
    errors = np.abs(predicted / measured - 1)
    return HeldOut(
        mape=float(errors.mean()),
        worst=float(errors.max()),
        within_10_percent=float(np.mean(errors <= 0.1)),
        samples=len(errors),
    )
