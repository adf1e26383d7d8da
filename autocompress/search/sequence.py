"""What stands at each place of the sequence of candidates.

What stands at place k follows from seed, choices, predictor, anchors, the plans of all places before, and the results
of places up to k - ``parallel`` alone. So up to ``parallel`` candidates may be in work at once, by any number of
processes, and none of them changes what any candidate is: who comes later, or again, finds the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np

from autocompress.search.history import History
from autocompress.search.ladder import Lines
from autocompress.search.objective import Candidate, Objective, Params, foresee
from autocompress.search.places import Ledger
from autocompress.search.proposing import Known, Proposer, Result, derived
from autocompress.search.records import plan_key, record_of

DRAWS = 4000
"""Choices that chance tries where no proposal is new and inside the budget; then there is nothing left."""
CHANCE = 1
"""What tells the seed of chance from those of proposers."""


@dataclass(frozen=True)
class Rules:
    """What decides the sequence, beside the objective.

    Attributes:
        seed: Of every choice.
        parallel: At place k the results of places up to k - ``parallel`` are known.
        proposer: Says what to try.
        anchors: Choices to try first, whatever they cost.
    """

    seed: int
    parallel: int
    proposer: Proposer
    anchors: Sequence[Params] = ()


class CandidateSequence:
    """Goes along the places in order; the results that it needs must be in the ledger.

    Args:
        objective: What may be chosen, and what is foreseen of it.
        rules: What else decides the sequence.
        ledger: Results, and the plans that others wrote down.
    """

    def __init__(self, objective: Objective, rules: Rules, ledger: Ledger) -> None:
        self._objective, self._rules, self._ledger = objective, rules, ledger
        self._choices = {name: values for name, values in objective.choices.items() if len(values) > 1}
        self._anchors = self._distinct(rules.anchors)
        self._history = History(rules.proposer.most)
        self._lines = Lines()
        self._taken: set[bytes] = set()
        self._pending: dict[int, Params] = {}
        self._next = 0
        self.exhausted_at: int | None = None

    def at(self, place: int) -> tuple[Params, Candidate] | None:
        """Return what stands at a place without a result, or ``None`` where nothing new is left to try."""
        while self._next <= place and self.exhausted_at is None:
            self._go_on()
        if self.exhausted_at is not None and place >= self.exhausted_at:
            return None
        params = self._pending[place]
        return params, self._foresee(params)

    def _go_on(self) -> None:
        place = self._next
        self._learn(place - self._rules.parallel)
        known = self._ledger.noted(place)
        params: Params
        if known is not None:
            params, key = known.params, _digest(plan_key(known.user_attrs["candidate"]["plan"]))
        elif place < len(self._anchors):
            params, key = self._anchors[place]
        else:
            found = self._propose(place)
            if found is None:
                self.exhausted_at = place
                return
            params, key = found
        self._pending[place] = params
        self._taken.add(key)
        self._next += 1

    def _learn(self, place: int) -> None:
        """Add the result of ``place``; places come in order."""
        if place < 0:
            return
        del self._pending[place]
        if not self._ledger.scored(place):
            return
        record = record_of(place, self._ledger.trial(place))
        highest, rungs = record.highest, [scored.value for scored in record.rungs]
        assert highest is not None
        rung = len(rungs) - 1 if record.score is None else None
        self._history.add(Result(record.params, highest.value, record.latency_ms, highest.standard_error, rung))
        if record.score is not None:
            self._lines.add(rungs, record.score)

    def _propose(self, place: int) -> tuple[Params, bytes] | None:
        known = Known(self._lines.lifted(self._history.results()), list(self._pending.values()))
        rules = self._rules
        proposals: Iterator[Params] = iter(())
        if self._choices:
            proposer = rules.proposer
            proposals = islice(proposer.propose(self._choices, known, (rules.seed, place)), proposer.attempts)
        tried: set[tuple[int, ...]] = set()
        for source in (proposals, self._chance(place)):
            for params in source:
                drawn = tuple(self._choices[name].index(value) for name, value in sorted(params.items()))
                if drawn in tried:
                    continue
                tried.add(drawn)
                candidate = self._foresee(params)
                key = _digest(plan_key(candidate.plan.to_json()))
                if candidate.inside and key not in self._taken:
                    return params, key
        return None

    def _chance(self, place: int) -> Iterator[Params]:
        """Yield every combination once in a random order, or ``DRAWS`` random ones where there are more."""
        rng = np.random.default_rng(derived(self._rules.seed, place, 0, CHANCE))
        sizes = [len(values) for values in self._choices.values()]
        if prod(sizes) <= DRAWS:
            drawn = np.stack(np.unravel_index(rng.permutation(prod(sizes)), sizes), axis=1) if sizes else [()]
        else:
            drawn = rng.integers(0, sizes, size=(DRAWS, len(sizes)))
        for indices in drawn:
            pairs = zip(self._choices.items(), indices, strict=True)
            yield {name: values[int(index)] for (name, values), index in pairs}

    def _distinct(self, anchors: Sequence[Params]) -> list[tuple[Params, bytes]]:
        """Return the choices of different plans, each with the plan's digest."""
        found: dict[bytes, Params] = {}
        for anchor in anchors:
            params = {name: anchor[name] for name in self._choices}
            found.setdefault(_digest(plan_key(self._objective.draw(params).to_json())), params)
        return [(params, key) for key, params in found.items()]

    def _foresee(self, params: Params) -> Candidate:
        return foresee(self._objective.draw(params), self._objective)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
