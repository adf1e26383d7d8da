"""The ledger: which places of the sequence have a result, which are in work, and which are free.

Every trial names its place. Of those in work at one place, the one of the lowest number holds it, and the others
withdraw: storages give numbers once and in order, so all agree. A place is free where nobody is at work and nothing was
found. What is read once is not read again: a look at the study costs what is new in it, however long it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.search.attempts import Attempt, begin, retire
from autocompress.search.objective import Scored, mean_latency
from autocompress.search.reading import Reading
from autocompress.search.workers import Watch, Worker

LOST_LIMIT = 3
"""Workers that may be lost at one place before it counts as a candidate that failed."""
RUNGS = "rungs"
"""What trials call their scores on the rungs below the top: [score, standard error] each."""
_NONE = -1


class Ledger:
    """The places of a study.

    Args:
        study: Its trials name their places.
        watch: Who sees lost workers; ``None`` to look only, and change nothing.
    """

    def __init__(self, study: optuna.Study, watch: Watch | None = None) -> None:
        self.study, self._watch = study, watch
        self._trials = Reading(study)
        self._decided: list[int] = []
        self._open: dict[int, int] = {}
        self._lost: dict[int, int] = {}
        self._settled = self._settled_scored = 0
        self._news: list[int] = []

    def refresh(self) -> None:
        """Read what is new, and close trials whose workers are lost."""
        while self._read():
            pass
        while self._settled < len(self._decided) and self.done(self._settled):
            self._settled_scored += self.scored(self._settled)
            self._settled += 1

    def _read(self) -> bool:
        """Return whether a trial was closed, of which it has to be read what became of it."""
        for trial in self._trials.refresh(self._open):
            if (place := trial.user_attrs.get("place")) is not None:
                self._open[trial.number] = place
                self._decided.extend([_NONE] * (place + 1 - len(self._decided)))
        closed = [number for number, place in list(self._open.items()) if self._look(number, place)]
        return bool(closed)

    def news(self) -> list[int]:
        """Return the places that were read to have a result since this was asked last."""
        new, self._news = self._news, []
        return new

    def _look(self, number: int, place: int) -> bool:
        """Note what became of a trial that was in work, and return whether it was closed for being lost."""
        trial = self._trials[number]
        if not trial.state.is_finished():
            if self._watch is None or not self._watch.lost(trial):
                return False
            retire(self.study, trial)
            return True
        del self._open[number]
        if self._watch is not None:
            self._watch.forget(number)
        if trial.state is TrialState.FAIL and "reason" not in trial.user_attrs:
            self._lost[place] = self._lost.get(place, 0) + ("back" not in trial.user_attrs)
        elif self._decided[place] == _NONE:
            self._decided[place] = number
            self._lost.pop(place, None)
            self._news.append(place)
        return False

    def results(self) -> Iterator[tuple[int, FrozenTrial]]:
        """Yield each place that has a result, in order, with the trial that brought it."""
        for place, number in enumerate(self._decided):
            if number != _NONE:
                yield place, self._trials[number]

    def listen_anew(self) -> None:
        """Hear every worker once more before one of them counts as lost, as the storage was away for all."""
        if self._watch is not None:
            self._watch.begin_anew()

    def done(self, place: int) -> bool:
        """Whether a place has a result; those before the first are none that one could wait for."""
        return place < 0 or (place < len(self._decided) and self._decided[place] != _NONE)

    def scored(self, place: int) -> bool:
        """Whether the result of a place is a score, on whatever rung."""
        trial = self.trial(place)
        return trial.state is TrialState.COMPLETE or (trial.state is TrialState.PRUNED and bool(rungs_of(trial)))

    def trial(self, place: int) -> FrozenTrial:
        """Return the trial that brought the result of ``place``."""
        return self._trials[self._decided[place]]

    def noted(self, place: int) -> FrozenTrial | None:
        """Return a trial that says what stands at ``place``, where there is one that is finished or in work."""
        if self.done(place):
            return self.trial(place)
        return next((self._trials[number] for number, at in self._open.items() if at == place), None)

    def lost(self, place: int) -> int:
        """Return how many workers were lost at a place without a result."""
        return self._lost.get(place, 0)

    def in_work(self) -> int:
        """Return how many places somebody works at."""
        return len(set(self._open.values()))

    def open_trials(self) -> list[FrozenTrial]:
        """Return the trials in work, or left behind by lost workers that nobody has seen to be lost."""
        return [self._trials[number] for number in self._open]

    def free(self, trials: int, parallel: int) -> Iterator[int]:
        """Yield the places that can be taken up, the first first.

        Such a place needs a result to reach ``trials`` scored candidates, whatever comes of those before it, and the
        results that decide what stands at it (those up to ``parallel`` places before) are there.
        """
        taken = set(self._open.values())
        place, could_be_scored = self._settled, self._settled_scored
        while could_be_scored < trials and self.done(place - parallel):
            if not self.done(place):
                could_be_scored += 1
                if place not in taken:
                    yield place
            else:
                could_be_scored += self.scored(place)
            place += 1

    def take(self, place: int, worker: Worker, **about: Any) -> Attempt | None:
        """Take a free place up, or return ``None`` where another was faster."""
        self.refresh()  # What stands there took its time to find out.
        if self.done(place) or place in self._open.values():
            return None
        attempt = begin(self.study, place, worker, **about)
        try:
            self.refresh()
            if not self.done(place) and min(n for n, at in self._open.items() if at == place) == attempt.number:
                return attempt
        except BaseException:
            with suppress(Exception):  # The first error says it.
                attempt.give_back()
            raise
        attempt.give_back()
        return None


def rungs_of(trial: FrozenTrial) -> tuple[Scored, ...]:
    """Return the scores of a trial on the rungs below the top that it reached."""
    return tuple(Scored(*rung) for rung in trial.user_attrs.get(RUNGS, ()))


def latency_of(trial: FrozenTrial) -> float:
    """Return the median latency that was foreseen of a candidate, in milliseconds; of a fleet the ``mean_latency``."""
    candidate = trial.user_attrs["candidate"]
    costs = candidate.get("costs", {}).values() or [candidate["cost"]]
    return mean_latency([cost["latency_p50_ms"]["value"] for cost in costs])
