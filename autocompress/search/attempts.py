"""One attempt at a place: a trial that names place and worker, and is finished with a result, or without one.

A trial that failed without a reason was lost with its worker, or given back; the place is then free again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from autocompress.search import workers
from autocompress.search.storage import is_away
from autocompress.search.workers import Worker

PATIENCE_S, RETRY_S = 300.0, 2.0
"""Seconds that a server may be away, and between two attempts to reach it."""
UNNAMED = "constraints"
"""Where Optuna kept constraints before they had names, and where its dashboard still looks for them."""


class TakenOverError(Exception):
    """Others held this worker for lost, and have its trial: whatever it found is theirs to find."""


class Attempt:
    """A trial in the hands of this worker.

    Args:
        study: That holds it.
        place: In the sequence of candidates.
        trial_id: The storage's own name of it.
        number: In the study.

    Attributes:
        was_away: Whether the storage could not be written at times, so that others gave no signs of life either.
    """

    def __init__(self, study: optuna.Study, place: int, trial_id: int, number: int) -> None:
        self.place, self.number = place, number
        self.was_away = False
        self._storage: Any = study._storage
        self._trial_id = trial_id

    def note(self, **attributes: object) -> None:
        """Write attributes of the trial down.

        Raises:
            TakenOverError: Others hold it now.
        """
        for name, value in attributes.items():
            self._guarded(partial(self._storage.set_trial_user_attr, self._trial_id, name, value))

    def finish(self, state: TrialState, values: tuple[float, ...] | None = None) -> None:
        """End the trial with a result; a server that is away is waited for, as the result may have taken an hour.

        Raises:
            TakenOverError: Others hold it now.
        """
        self._guarded(partial(self._storage.set_trial_state_values, self._trial_id, state, values))

    def give_back(self) -> None:
        """End the trial without a result, so that others take its place up at once."""
        try:
            self.note(back=True)
            self.finish(TrialState.FAIL)
        except TakenOverError:
            pass

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life in the meantime."""
        ended = Event()
        thread = Thread(target=self._beat, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: Event) -> None:
        count = 0
        while not ended.wait(workers.BEAT_S):
            count += 1
            try:
                self._storage.set_trial_user_attr(self._trial_id, "beat", count)
            except UpdateFinishedTrialError:  # The other thread learns it when it writes.
                return
            except Exception:  # A server that is away may be back for the next; if not, the result cannot be written.
                self.was_away = True

    def _guarded(self, write: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                write()
                return
            except UpdateFinishedTrialError as error:
                raise TakenOverError from error
            except Exception as error:
                if not is_away(self._storage, error) or time.monotonic() > deadline:
                    raise
                self.was_away = True
            time.sleep(RETRY_S)


def begin(
    study: optuna.Study,
    place: int,
    worker: Worker,
    *,
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    constraints: Mapping[str, float] | None = None,
    **attributes: object,
) -> Attempt:
    """Open a trial at ``place``, with all that is known of it, in one write: it is there whole or not at all."""
    template = create_trial(
        state=TrialState.RUNNING,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        user_attrs={"place": place, "worker": worker.to_attribute(), **attributes},
        constraints=dict(constraints or {}),
        system_attrs={UNNAMED: list((constraints or {}).values())},
    )
    storage: Any = study._storage
    trial_id = storage.create_new_trial(study._study_id, template)
    return Attempt(study, place, trial_id, storage.get_trial(trial_id).number)


def retire(study: optuna.Study, trial: FrozenTrial) -> None:
    """Close a trial whose worker is lost; if somebody else did meanwhile, that is as well."""
    storage: Any = study._storage
    with suppress(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
