"""A proposer that knows what choices cost alone: it tries what the surrogate expects to be the largest improvement.

The best candidates so far and the least costly ones are changed a choice at a time, beside choices by chance; costs are
foreseen for all of them, and those over budget are dropped. Half of the places look for the best score inside the
budget, the others inside a smaller latency, so that a front comes of one search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.search.objective import Choices, Params
from autocompress.search.proposing import Known, Result
from autocompress.search.surrogate import Floats, Nats, Places, Surrogate, fit

BY_CHANCE = 384
"""Candidates that chance draws for each place."""
ROUNDS, BEST = 3, 8
"""So often the neighbours of so many best ones are looked at."""
WHOLE = 0.5
"""Share of the places that look for the best inside the whole budget."""

Foreseen: TypeAlias = tuple[npt.NDArray[np.bool_], Floats]
"""Of candidates (candidates,): whether they are inside the budget, and their median latencies in milliseconds."""


@dataclass(frozen=True)
class Informed:
    """See the module.

    Attributes:
        nats: What choices cost alone.
        foresee: Says what candidates cost.
        most: See ``Proposer``.
        attempts: See ``Proposer``.
    """

    nats: Nats
    foresee: Callable[[Sequence[Params]], Foreseen]
    most: int = 300
    attempts: int = 200

    def propose(self, choices: Choices, known: Known, seed: Sequence[int]) -> Iterator[Params]:
        """Yield candidates inside the budget, those of the largest expected improvement first."""
        rng = np.random.default_rng(seed)
        pool = _Pool(choices, self.foresee)
        pool.add(_by_chance(choices, rng))
        pool.add([result.params for result in known.results])
        if not pool.inside:
            return
        cap_ms = np.inf if rng.random() < WHOLE else float(rng.choice(pool.latencies_ms()))
        scores = _Scores(self.nats, choices, known)
        for _ in range(ROUNDS):
            order = _order(pool, scores, cap_ms)
            pool.add([near for index in order[:BEST] for near in _neighbours(choices, pool.inside[index])])
        for index in _order(pool, scores, cap_ms):
            yield pool.inside[index]


def _order(pool: _Pool, scores: _Scores, cap_ms: float) -> list[int]:
    """Return which of the pool are below ``cap_ms``, the largest expected improvement first."""
    below = np.flatnonzero(pool.latencies_ms() <= cap_ms)
    gain = scores.gain([pool.inside[index] for index in below], cap_ms)
    return [int(index) for index in below[np.argsort(-gain, kind="stable")]]


class _Scores:
    """What is thought of scores at one place; of candidates in work, what is expected of them (a believer's kriging).

    Source: Ginsbourger et al. 2010, section 3.2.
    """

    def __init__(self, nats: Nats, choices: Choices, known: Known) -> None:
        self._nats, self._choices, self._results = nats, choices, list(known.results)
        self._surrogate = self._fitted()
        if known.pending and self._results:
            thought = self._surrogate.at(self._places(known.pending)).mean.tolist()
            self._results += [Result(params, mean, np.inf) for params, mean in zip(known.pending, thought, strict=True)]
            self._surrogate = self._fitted()

    def gain(self, asked: Sequence[Params], cap_ms: float) -> Floats:
        """Return the expected improvement (candidates,) over the best below ``cap_ms``; without any, the mean."""
        found = self._surrogate.at(self._places(asked))
        known = [result.params for result in self._results if result.latency_ms <= cap_ms]
        if not known:
            return found.mean
        # As the surrogate sees it: the highest of many noisy scores is luck.
        return found.expected_improvement(float(self._surrogate.at(self._places(known)).mean.max()))

    def _fitted(self) -> Surrogate:
        scores, noise = ([getattr(each, name) for each in self._results] for name in ("score", "standard_error"))
        places = self._places([result.params for result in self._results])
        return fit(places, np.array(scores, np.float64), np.array(noise, np.float64))

    def _places(self, candidates: Sequence[Params]) -> Places:
        return Places.of(self._nats, self._choices, candidates)


class _Pool:
    """Different candidates inside the budget."""

    def __init__(self, choices: Choices, foresee: Callable[[Sequence[Params]], Foreseen]) -> None:
        self._names, self._foresee = sorted(choices), foresee
        self._seen: set[tuple[object, ...]] = set()
        self._latencies: list[float] = []
        self.inside: list[Params] = []

    def latencies_ms(self) -> Floats:
        """Return the median latencies of those inside, in milliseconds."""
        return np.array(self._latencies, np.float64)

    def add(self, candidates: Sequence[Params]) -> None:
        """Add what is new and inside the budget."""
        new = {key: each for each in candidates if (key := tuple(each[name] for name in self._names)) not in self._seen}
        self._seen.update(new)
        if new:
            inside, latencies = self._foresee(list(new.values()))
            self.inside += [each for each, fits in zip(new.values(), inside, strict=True) if fits]
            self._latencies += latencies[inside].tolist()


def _by_chance(choices: Choices, rng: np.random.Generator) -> list[Params]:
    drawn = rng.integers(0, [len(values) for values in choices.values()], size=(BY_CHANCE, len(choices)))
    return [{name: choices[name][at] for name, at in zip(choices, row, strict=True)} for row in drawn.tolist()]


def _neighbours(choices: Choices, params: Params) -> Iterator[Params]:
    """Yield all that differ in one choice."""
    for name, values in choices.items():
        yield from ({**params, name: value} for value in values if value != params[name])
