"""Only one process makes the finalists of a study, however many work on its candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import optuna

from autocompress.errors import StorageError
from autocompress.search.attempts import Attempt, TakenOverError
from autocompress.search.places import Ledger
from autocompress.search.proposing import DIRECTIONS
from autocompress.search.workers import Watch, Worker, machine, worker_of, working

LOOK_S = 1.0
"""Seconds between two looks at a search on another machine, which may be lost."""


class Lease:
    """The right to make the finalists, as long as this process gives signs of life."""

    def __init__(self, attempt: Attempt, name: str) -> None:
        self._attempt, self._name = attempt, name

    def check(self) -> None:
        """Make sure of it.

        Raises:
            StorageError: This process gave no sign for so long that another took the search over.
        """
        try:
            self._attempt.note(sure=time.time())
        except TakenOverError:
            raise StorageError(
                f"Another process goes on with the search {self._name!r}, as nothing was heard of this one for long.",
                right="One process makes the finalists of a search.",
                next_step="Leave it to that one, or stop it and run the same command with --resume.",
            ) from None


@contextmanager
def only_search(study: optuna.Study, on_wait: Callable[[str], None] = lambda host: None) -> Iterator[Lease]:
    """Be the one process that makes the finalists of ``study``.

    A second study beside it, with a trial for each search, says who that is.

    Args:
        study: Of the candidates.
        on_wait: Told the machine of which it has to be seen whether a search still runs there.

    Raises:
        StorageError: Another process is it.
    """
    searches = optuna.create_study(
        study_name=_name(study), storage=study._storage, directions=DIRECTIONS, load_if_exists=True
    )
    ledger = Ledger(searches, Watch())
    heard: dict[int, object] = {}
    with working() as worker:
        while True:
            ledger.refresh()
            if not ledger.in_work() and (attempt := ledger.take(0, worker)):
                break
            if (holder := ledger.noted(0)) and (holding := worker_of(holder)):
                beat = holder.user_attrs.get("beat")
                if holding.machine == machine() or heard.setdefault(holder.number, beat) != beat:
                    raise _running(study, holding)
                on_wait(holding.host)
            time.sleep(LOOK_S)
        try:
            with attempt.beating():
                yield Lease(attempt, study.study_name)
        finally:
            with suppress(Exception):  # What ended the search says why; a process that is gone holds nothing.
                attempt.give_back()


def refuse_second(study: optuna.Study) -> None:
    """Refuse to search where a process of this machine is seen to search; nothing is written.

    Raises:
        StorageError: One does.
    """
    holding = _holding(study)
    if holding is not None and holding.machine == machine() and not holding.gone():
        raise _running(study, holding)


def is_searched(study: optuna.Study) -> bool:
    """Whether, as far as is known, a process searches; one on another machine may be lost."""
    holding = _holding(study)
    return holding is not None and not holding.gone()


def _name(study: optuna.Study) -> str:
    return f"{study.study_name} (searches)"


def _holding(study: optuna.Study) -> Worker | None:
    if _name(study) not in optuna.get_all_study_names(study._storage):
        return None
    ledger = Ledger(optuna.load_study(study_name=_name(study), storage=study._storage))
    ledger.refresh()
    holder = ledger.noted(0)
    return None if holder is None else worker_of(holder)


def _running(study: optuna.Study, worker: Worker) -> StorageError:
    return StorageError(
        f"The search {study.study_name!r} is running already: process {worker.pid} on {worker.host}.",
        right="One process makes the finalists of a search; others help it to the candidates.",
        next_step="Help with autocompress worker, or stop that process first.",
    )
