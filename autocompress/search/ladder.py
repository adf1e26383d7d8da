"""The ladder of fidelity: a candidate is scored cheaply first, and dearer only while it is among the best third.

Successive halving without rounds (Li et al. 2020, ASHA, algorithm 2): a candidate is compared with those that reached
its rung before, of which it may know. Ours is the rank, as two figures count: how many others are no slower and better
by more than the noise of both scores (Fonseca and Fleming 1993, section 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt

import numpy as np

from autocompress.search.objective import Scored
from autocompress.search.proposing import Result

REDUCTION = 3
"""One of so many goes on from each rung; so many are waited for before one is stopped."""
MOST = 300
"""Candidates, the newest, that one is compared with, and of which it is learnt what a rung says of the top."""


@dataclass(frozen=True)
class Rung:
    """A candidate on a rung: its score there, and its latency in the unit of the study."""

    scored: Scored
    latency: float


def climbs(candidate: Rung, others: Sequence[Rung]) -> bool:
    """Return whether ``candidate`` goes on from a rung that ``others`` reached; of equal rank all go on, or none."""
    if len(others) < REDUCTION:
        return True
    known = [*others, candidate]
    score, error, latency = np.array([(x.scored.value, x.scored.standard_error, x.latency) for x in known]).T
    better = score[:, None] - score > np.hypot(error[:, None], error)
    ranks = (better & (latency[:, None] <= latency)).sum(0)
    return int((ranks < ranks[-1]).sum()) * REDUCTION < len(known)


class Lines:
    """What scores of a rung say of those at the top: a line for each rung, through candidates that have both."""

    def __init__(self) -> None:
        self._known: deque[tuple[Sequence[float], float]] = deque(maxlen=MOST)

    def add(self, rungs: Sequence[float], top: float) -> None:
        """Add the scores of a candidate that reached the top."""
        if rungs:
            self._known.append((tuple(rungs), top))

    def lifted(self, results: Sequence[Result]) -> list[Result]:
        """Return results as if all had reached the top, without those of which nothing can be said yet.

        The standard error of what is not known holds that of the score and how far the line was off.
        """
        if all(result.rung is None for result in results):
            return list(results)
        lines = [self._line(rung) for rung in range(len(self._known[0][0]))] if len(self._known) >= REDUCTION else []
        return [found for result in results if (found := _lifted(result, lines)) is not None]

    def _line(self, rung: int) -> _Line:
        low, top = np.array([(rungs[rung], top) for rungs, top in self._known]).T
        spread = float(((low - low.mean()) ** 2).sum())
        # What costs more training is worth no less than what costs less of it.
        slope = max(0.0, float(((low - low.mean()) * (top - top.mean())).sum()) / spread) if spread > 0 else 0.0
        away = top - top.mean() - slope * (low - low.mean())
        return _Line(float(low.mean()), float(top.mean()), slope, sqrt(float((away**2).sum()) / (len(low) - 2)))


@dataclass(frozen=True)
class _Line:
    low: float
    top: float
    slope: float
    away: float


def _lifted(result: Result, lines: Sequence[_Line]) -> Result | None:
    if result.rung is None:
        return result
    if not lines:
        return None
    line = lines[result.rung]
    score = line.top + line.slope * (result.score - line.low)
    return replace(result, score=score, standard_error=hypot(line.slope * result.standard_error, line.away), rung=None)
