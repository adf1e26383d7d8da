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
from autocompress.search.workers import Watch, machine, worker_of, working

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
    name = study.study_name
    searches = optuna.create_study(
        study_name=f"{name} (searches)", storage=study._storage, directions=DIRECTIONS, load_if_exists=True
    )
    ledger = Ledger(searches, Watch())
    with working() as worker:
        heard: dict[int, object] = {}
        while True:
            ledger.refresh()
            if not ledger.in_work() and (attempt := ledger.take(0, worker)):
                break
            holder = ledger.noted(0)
            if holder is None:
                continue
            host, beat = worker_of(holder), holder.user_attrs.get("beat")
            if host is not None and (host.machine == machine() or heard.setdefault(holder.number, beat) != beat):
                raise StorageError(
                    f"The search {name!r} is running already: process {host.pid} on {host.host}.",
                    right="One process makes the finalists of a search; others help it to the candidates.",
                    next_step="Help with autocompress worker, or stop that process first.",
                )
            on_wait("another machine" if host is None else host.host)
            time.sleep(LOOK_S)
        try:
            with attempt.beating():
                yield Lease(attempt, name)
        finally:
            with suppress(Exception):  # What ended the search says why; a process that is gone holds nothing.
                attempt.give_back()
