"""Where a noisy series changes its level: an optimal partition whose penalty comes from the noise of the series itself.

Series are logarithms, so a level that is higher by ``d`` is slower by the factor ``exp(d)``.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SHORTEST = 3
"""Samples of the shortest stretch that can be told from spikes."""
SMALLEST_NOISE = 0.002
"""Clocks and caches alone make times differ by this share; a series without noise is still not exact."""
SPIKE = 3.0
"""Standard deviations beyond which one or two samples that leave their neighbours are spikes."""
PENALTY = 2.0
"""Of one change, in variances times log(samples): Schwarz's criterion, which finds all changes of a mean (Yao 1988)."""
_MAD = 1.4826
"""Standard deviations of normal noise in its median absolute deviation."""
_TOO_FEW = 3


def noise(series: Array) -> float:
    """Return the standard deviation of ``series`` (samples,) about its level, whatever changes that level makes.

    From the median absolute difference of neighbours: a change of level moves one difference of many.
    """
    if len(series) < _TOO_FEW:
        return SMALLEST_NOISE
    return max(_MAD * float(np.median(np.abs(np.diff(series)))) / sqrt(2), SMALLEST_NOISE)


def without_spikes(series: Array, spread: float) -> Array:
    """Return ``series`` with spikes of one or two samples cut to ``SPIKE * spread`` from the median of five neighbours.

    Hampel's filter; stretches of ``SHORTEST`` samples and more stay, edges included.
    """
    if len(series) < SHORTEST:
        return series
    around = np.lib.stride_tricks.sliding_window_view(np.pad(series, 2, mode="reflect"), 5)
    centre = np.median(around, axis=1)
    return np.clip(series, centre - SPIKE * spread, centre + SPIKE * spread)


def partition(series: Array, spread: float) -> list[range]:
    """Cut ``series`` (samples,) into contiguous stretches of equal level, each of ``SHORTEST`` samples or more.

    The least sum of squares plus ``PENALTY * spread**2 * log(samples)`` for each change; exact, by dynamic programming
    (Jackson et al. 2005), in time that grows with the square of the samples.
    """
    count = len(series)
    if count < 2 * SHORTEST:
        return [range(count)] if count else []
    penalty = PENALTY * spread**2 * log(count)
    sums = np.concatenate([[0.0], np.cumsum(series)])
    squares = np.concatenate([[0.0], np.cumsum(series**2)])
    best = np.full(count + 1, np.inf)
    best[0] = -penalty
    last = np.zeros(count + 1, dtype=int)
    for end in range(SHORTEST, count + 1):
        starts = np.arange(end - SHORTEST + 1)
        within = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / (end - starts)
        costs = best[starts] + within + penalty
        last[end] = int(np.argmin(costs))
        best[end] = costs[last[end]]
    stretches, end = [], count
    while end:
        stretches.append(range(int(last[end]), end))
        end = int(last[end])
    return stretches[::-1]
