"""Say how far off a prediction may be, from samples that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COVERAGE = 0.9
"""Share of measured values that the intervals should hold."""
FEWEST_SAMPLES = 9
"""With fewer no finite interval has that coverage: the smallest n with ceil(0.9 (n + 1)) <= n."""
_TINY = 1e-12


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


def log_errors(predicted: Array, measured: Array) -> Array:
    """Return abs(log(measured / predicted)): relative errors for which twice and half are equally far off."""
    return np.abs(np.log(np.maximum(measured, _TINY) / np.maximum(predicted, _TINY)))


def jackknife_plus(predictions: Array, errors: Array, *, coverage: float = COVERAGE) -> tuple[float, float]:
    """Return the interval that should hold a new measured value.

    Jackknife+ (Barber, Candes, Ramdas, Tibshirani 2021, section 1.2), on a log scale. Where the samples are
    exchangeable, at least ``2 * coverage - 1`` is guaranteed and about ``coverage`` is usual. The interval widens by
    itself where fits without one sample disagree.

    Args:
        predictions: (samples,), what each fit without one sample says of the new shape.
        errors: (samples,), ``log_errors`` of each of these fits on the sample that it left out.
        coverage: Between 0 and 1. With fewer samples than it needs the interval is (0, inf).
    """
    count = len(predictions)
    rank_high = ceil(round(coverage * (count + 1), 9))
    rank_low = floor(round((1 - coverage) * (count + 1), 9))
    if rank_high > count or rank_low < 1:
        return 0.0, float("inf")
    low = np.sort(predictions * np.exp(-errors))[rank_low - 1]
    high = np.sort(predictions * np.exp(errors))[rank_high - 1]
    return float(low), float(high)
