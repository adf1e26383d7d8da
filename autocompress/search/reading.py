"""Read a study as it grows: a look costs what is new in it, however long it is.

Optuna lists all trials at each look. Its journal also knows a trial by its number, at the cost of that trial alone;
for databases and the proxy, where a look costs queries, the list is what takes the fewest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial


class Reading:
    """The trials of a study, as they were when they were read last.

    Args:
        study: That holds them.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._storage: Any = study._storage
        self._trials: list[FrozenTrial] = []
        self._offered: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}

    def __getitem__(self, number: int) -> FrozenTrial:
        return self._trials[number]

    def refresh(self, unfinished: Iterable[int]) -> list[FrozenTrial]:
        """Return what is new, in order; read ``unfinished`` trials again, as only those change."""
        known = len(self._trials)
        if known and isinstance(self._storage, JournalStorage):
            again, new = ((number, self._trial(number)) for number in unfinished), list(self._from(known))
        else:
            listed = self._study.get_trials(deepcopy=False)
            again = ((number, listed[number]) for number in unfinished)
            # A later one may be seen first; the one before it is read next time.
            new = [trial for number, trial in enumerate(islice(listed, known, None), known) if trial.number == number]
        for number, trial in again:
            self._trials[number] = trial
        for trial in new:
            self._share_distributions(trial)
        self._trials += new
        return new

    def _share_distributions(self, trial: FrozenTrial) -> None:
        """Hold equal distributions once: Optuna reads them anew for each trial, of which they are a large part."""
        offered = trial.distributions
        key = tuple((name, getattr(each, "choices", each)) for name, each in offered.items())
        trial.distributions = self._offered.setdefault(key, offered)

    def _from(self, number: int) -> Iterator[FrozenTrial]:
        for each in count(number):
            try:
                yield self._trial(each)
            except KeyError:
                return

    def _trial(self, number: int) -> FrozenTrial:
        found = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        trial: FrozenTrial = self._storage.get_trial(found)
        return trial
