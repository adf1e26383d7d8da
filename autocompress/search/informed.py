"""A proposer that knows what choices cost alone: it tries what the surrogate expects to be the largest improvement.

Costs are foreseen of candidates that chance draws, of those that a knapsack chose, and of what differs by one choice
from promising ones; what is over budget is dropped. Every other place looks for the best score inside the budget, the
others for what lifts the front of score and latency most, so that a front comes of one search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
STEP = 0.1
"""How far the front reaches beyond the highest latency inside the budget, in logarithms."""

Foreseen: TypeAlias = tuple[npt.NDArray[np.bool_], Floats]
"""Of candidates (candidates,): whether they are inside the budget, and their median latencies in milliseconds."""


@dataclass(frozen=True)
class Informed:
    """See the module.

    Attributes:
        nats: What choices cost alone.
        foresee: Says what candidates cost.
        warm: Candidates that are looked at for every place: what was foreseen to be best (``pipeline.warm_start``).
        others: Say the same of further devices, and of all together: each two places look for one of them in turn.
        most: See ``Proposer``.
        attempts: See ``Proposer``.
    """

    nats: Nats
    foresee: Callable[[Sequence[Params]], Foreseen]
    warm: Sequence[Params] = ()
    others: Sequence[Callable[[Sequence[Params]], Foreseen]] = ()
    most: int = 300
    attempts: int = 200

    def propose(self, choices: Choices, known: Known, seed: Sequence[int]) -> Iterator[Params]:
        """Yield candidates inside the budget, those of the largest expected improvement first."""
        rng = np.random.default_rng(seed)
        looked_at: list[Sequence[Params]] = [
            _by_chance(choices, rng),
            [{name: each[name] for name in choices} for each in self.warm],
            [result.params for result in known.results],
        ]
        devices = (self.foresee, *self.others)
        turn = seed[-1] // 2 % len(devices)
        for foresee in (*devices[turn:], *devices[:turn]):  # The next in turn where nothing fits one.
            pool = _Pool(choices, foresee)
            for candidates in looked_at:
                pool.add(candidates)
            if pool.inside:
                break
        else:
            return
        scores = _Scores(self, choices, known, foresee)
        gain = scores.of_the_best if seed[-1] % 2 else scores.of_the_front  # The last number is the place.
        for _ in range(ROUNDS):
            order = np.argsort(-gain(pool), kind="stable").tolist()
            pool.add([near for index in order[:BEST] for near in _neighbours(choices, pool.inside[index])])
        for index in np.argsort(-gain(pool), kind="stable").tolist():
            yield pool.inside[index]


class _Scores:
    """What is thought of scores at one place; of candidates in work, what is expected of them (a believer's kriging).

    Source: Ginsbourger et al. 2010, section 3.2.
    """

    def __init__(
        self, proposer: Informed, choices: Choices, known: Known, foresee: Callable[[Sequence[Params]], Foreseen]
    ) -> None:
        self._nats, self._foresee = proposer.nats, foresee
        self._choices, self._results = choices, list(known.results)
        self._surrogate = self._fitted()
        if known.pending and self._results:
            thought = self._surrogate.at(self._places(known.pending)).mean.tolist()
            waited = zip(known.pending, thought, self._foresee(known.pending)[1].tolist(), strict=True)
            self._results += [Result(params, mean, latency_ms) for params, mean, latency_ms in waited]
            self._surrogate = self._fitted()
        if proposer.others:
            self._results = self._as_one_device_sees_them()

    def of_the_best(self, pool: _Pool) -> Floats:
        """Return the expected improvement over the best score; without any, the mean (candidates,)."""
        found = self._surrogate.at(self._places(pool.inside))
        return found.expected_improvement(float(self._seen.max())) if self._results else found.mean

    def of_the_front(self, pool: _Pool) -> Floats:
        """Return how much each candidate is expected to lift the front (candidates,).

        The front is the best score known for each latency. Where latencies are known, the expected improvement of the
        hypervolume (Emmerich et al. 2006) is that over each of its steps, times the step's width, here in logarithms.
        """
        found, logs = self._surrogate.at(self._places(pool.inside)), np.log(pool.latencies_ms())
        known = np.log([result.latency_ms for result in self._results])
        order = np.argsort(known, kind="stable")
        # Below what is known already nothing is worse than what the surrogate thinks worst.
        heights = np.maximum.accumulate([found.mean.min(), *self._seen[order]])
        starts = np.array([-np.inf, *known[order]])
        ends = np.minimum([*known[order], np.inf], logs.max() + STEP)
        widths = np.maximum(ends - np.maximum(starts, logs[:, None]), 0.0)
        steps = [found.expected_improvement(float(height)) for height in heights]
        return np.asarray((widths.T * np.array(steps)).sum(0), np.float64)

    @cached_property
    def _seen(self) -> Floats:
        """Return the scores as the surrogate sees them (results,): the highest of many noisy ones is luck."""
        return self._surrogate.at(self._places([result.params for result in self._results])).mean

    def _as_one_device_sees_them(self) -> list[Result]:
        """Return the results that fit the device, with its latencies; all have taught the surrogate."""
        fits, latencies = self._foresee([result.params for result in self._results]) if self._results else ((), ())
        each = zip(self._results, fits, latencies, strict=True)
        return [replace(result, latency_ms=float(latency_ms)) for result, inside, latency_ms in each if inside]

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
