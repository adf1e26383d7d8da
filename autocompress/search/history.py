"""What a proposer is shown of a long search: the best results and the newest, never more than it can look at."""

from __future__ import annotations

from collections import deque

import numpy as np

from autocompress.search.proposing import Result


class History:
    """Results in the order of their places, of which the worst are forgotten.

    What is kept follows from the results and their order alone.

    Args:
        most: Results that are kept: one half the newest, the other the best of those before.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._newest: deque[Result] = deque()
        self._best: list[Result] = []

    def add(self, result: Result) -> None:
        """Add the result of the next place."""
        self._newest.append(result)
        if len(self._newest) > self._most // 2:
            self._best.append(self._newest.popleft())
        if len(self._best) > self._most - self._most // 2:
            del self._best[_worst(self._best)]

    def results(self) -> list[Result]:
        """Return what is kept, in the order of the places."""
        return [*self._best, *self._newest]


def _worst(results: list[Result]) -> int:
    """Return the one that most others dominate; of several the one of the lowest score, and the oldest of these."""
    score, latency = np.array([(result.score, result.latency_ms) for result in results]).T
    no_worse = (score[:, None] >= score) & (latency[:, None] <= latency)
    better = (score[:, None] > score) | (latency[:, None] < latency)
    dominated = (no_worse & better).sum(axis=0)
    return int(np.lexsort((np.arange(len(results)), score, -dominated))[0])
