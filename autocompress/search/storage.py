"""Open the study of a run, new or resumed, and turn storage failures into errors that say what to do."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna import Study
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from sqlalchemy.exc import SQLAlchemyError

from autocompress.errors import ConfigError, StorageError

optuna.logging.set_verbosity(optuna.logging.WARNING)

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
"""Of the two objectives: the metric, and the predicted median latency."""

STALE_LOCK_S = 5
"""Seconds after which the lock of a killed process no longer counts; one write takes milliseconds."""


def open_study(storage: str, name: str, *, resume: bool) -> Study:
    """Return the study ``name``.

    Args:
        storage: ``journal:PATH``, ``sqlite:///PATH``, or another SQLAlchemy URL.
        name: The run's name.
        resume: Whether the study is expected to exist.

    Raises:
        StorageError: The study has candidates and should not, or does not exist and should; or the file is corrupted,
            locked, or on a full disk.
    """
    with _opening(storage):
        backend = _backend(storage)
        exists = name in optuna.get_all_study_names(backend)
        if not exists and resume:
            raise StorageError(
                f"There is no study {name!r} in {storage} to resume.",
                right="--resume goes on with a run that was started before.",
                next_step="Leave out --resume to start it, or correct name, runs_folder or search.storage.",
            )
        if exists:  # Only read: status looks at a study while another process writes to it.
            study = optuna.load_study(study_name=name, storage=backend)
        else:
            study = optuna.create_study(study_name=name, storage=backend, directions=DIRECTIONS)
        if study.get_trials(deepcopy=False) and not resume:
            raise StorageError(
                f"The run {name!r} already has a study in {storage}.",
                right="A new run has a new name; an interrupted one is resumed.",
                next_step="Add --resume to go on with it, or set another name.",
            )
        return study


def mend(storage: str) -> None:
    """Cut off a journal's last line if a full disk or a crash left it unfinished: the next would be glued to it.

    Only for the process that goes on with the study. What a line says counts once it is whole, so nothing is lost.
    """
    path = Path(storage.removeprefix("journal:"))
    if not storage.startswith("journal:") or not path.is_file():
        return
    with storage_errors(storage):
        lock = _lock(path)
        lock.acquire()
        try:
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if content[whole:].startswith(b"{"):  # Anything else is damage, which is left as it is.
                os.truncate(path, whole)
        finally:
            lock.release()


def bind(study: Study, fingerprint: str) -> None:
    """Tie a study to everything that decides the sequence of its candidates; one without candidates is tied anew.

    Raises:
        StorageError: It was tied to something else before.
    """
    known = study.user_attrs.get("fingerprint")
    if known is None or not study.get_trials(deepcopy=False):
        study.set_user_attr("fingerprint", fingerprint)
    elif known != fingerprint:
        raise StorageError(
            f"The study {study.study_name!r} was made from another configuration ({known}, now {fingerprint}).",
            right="A resumed run keeps its model, task, device, predictor, budget, seed and space.",
            next_step="Restore the run's own file (run.yaml in its folder), or set another name.",
        )


def _backend(storage: str) -> BaseStorage:
    if storage.startswith("journal:"):
        path = Path(storage.removeprefix("journal:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), _lock(path)))
    if "://" not in storage:
        raise ConfigError(
            f"The storage {storage!r} is not known.",
            right="Storages are sqlite:///PATH, journal:PATH, or another SQLAlchemy URL.",
            next_step="Correct search.storage, or leave it out to keep the study in the run's folder.",
        )
    if storage.startswith("sqlite:///"):
        path = Path(storage.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_sqlite(path)
    return RDBStorage(storage)


def _lock(journal: Path) -> JournalFileSymlinkLock:
    # The lock is a link to the journal: a relative one would point nowhere, and then never counts as stale.
    return JournalFileSymlinkLock(str(journal.absolute()), grace_period=STALE_LOCK_S)


def _check_sqlite(path: Path) -> None:
    """Let SQLite check the file itself: damage in the middle shows only when a page is read."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with sqlite3.connect(path) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
    connection.close()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Turn what a storage raises while it is used into a ``StorageError``."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        raise _translate(storage, str(error.__cause__ or error)) from error
    except OSError as error:
        raise _translate(storage, str(error)) from error


@contextmanager
def _opening(storage: str) -> Iterator[None]:
    """Turn what a storage raises while a damaged file is read into a ``StorageError`` too."""
    try:
        with storage_errors(storage):
            yield
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise _translate(storage, f"malformed: {error}") from error


def _translate(storage: str, detail: str) -> StorageError:
    detail = detail.splitlines()[0] if detail else "no detail"
    if "full" in detail or "No space left" in detail:
        return StorageError(
            f"The disk that holds {storage} is full ({detail}).",
            right="The study needs a few megabytes free; every finished trial is kept.",
            next_step="Free space, then run the same command with --resume.",
        )
    if "locked" in detail:
        return StorageError(
            f"{storage} is locked ({detail}).",
            right="One process writes to a study file at a time.",
            next_step="Stop the other process, then run the same command with --resume.",
        )
    return StorageError(
        f"The study in {storage} cannot be read ({detail}).",
        right="It is a file that Optuna wrote; nothing was changed in it.",
        next_step="Restore it from a copy, or move it away and start again without --resume.",
    )
