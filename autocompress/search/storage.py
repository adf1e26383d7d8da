"""Open the study of a run, new or resumed, and turn storage failures into errors that say what to do."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna import Study
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from autocompress._optional import require
from autocompress.errors import ConfigError, MissingDependencyError, StorageError
from autocompress.search.address import hide, is_file, with_driver, without_password, without_user
from autocompress.search.journal import Journal
from autocompress.search.proposing import DIRECTIONS

optuna.logging.set_verbosity(optuna.logging.WARNING)

STORAGES = "journal:PATH, sqlite:///PATH, postgresql://USER@HOST/DATABASE, grpc://HOST:PORT, or another SQLAlchemy URL"
SQLITE_PATIENCE_S = 60
"""Seconds that a process waits for others to write."""
PROXY_PATIENCE_S = 20
"""Seconds that a gRPC proxy may take to answer first."""


def open_study(storage: str, name: str, *, resume: bool) -> Study:
    """Return the study ``name``.

    Args:
        storage: One of ``STORAGES``.
        name: The run's name.
        resume: Whether the study is expected to exist.

    Raises:
        StorageError: The study has candidates and should not, or does not exist and should; or the file is corrupted,
            locked, or on a full disk.
    """
    with _opening(storage):
        backend = _backend(storage)
        try:
            return _study(backend, without_password(storage), name, resume=resume)
        except BaseException:
            _close(backend)
            raise


def _study(backend: BaseStorage, storage: str, name: str, *, resume: bool) -> Study:
    exists = name in optuna.get_all_study_names(backend)
    if not exists and resume:
        raise StorageError(
            f"There is no study {name!r} in {storage} to go on with.",
            right="--resume and worker go on with a run that was started before.",
            next_step="Start it with autocompress search, or correct name, runs_folder or search.storage.",
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


def is_away(storage: BaseStorage, error: Exception) -> bool:
    """Whether an error says that the server of a storage cannot be reached at the moment; a file is never away."""
    database: Any = getattr(storage, "_backend", storage)
    if isinstance(storage, GrpcStorageProxy):
        return type(error).__module__.startswith("grpc")
    if not isinstance(database, RDBStorage) or database.engine.name == "sqlite":
        return False
    return isinstance(error, DBAPIError | optuna.exceptions.StorageInternalError)


def close(study: Study) -> None:
    """Close the connections of a study, which is of no more use then."""
    _close(study._storage)


def _close(storage: BaseStorage) -> None:
    database: Any = getattr(storage, "_backend", storage)  # Optuna wraps a database in a cache.
    if isinstance(database, RDBStorage):
        database.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


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
            right="A resumed run keeps its model, task, device, predictor, budget, seed, sampler, parallel and space.",
            next_step="Restore the run's own file (run.yaml in its folder), or set another name.",
        )


def check_bound(study: Study, fingerprint: str) -> None:
    """Make sure that a worker would find the same candidates as the search that it joins.

    Raises:
        StorageError: It would not.
    """
    known = study.user_attrs.get("fingerprint")
    if known != fingerprint:
        raise StorageError(
            f"The run {study.study_name!r} is another one here than where it began ({known}, here {fingerprint}).",
            right="A worker has the same model, documents, device profile and version of AutoCompress.",
            next_step="Start it where the run file's paths lead to the same files, with the same AUTOCOMPRESS_HOME.",
        )


def _backend(storage: str) -> BaseStorage:
    if storage.startswith("journal:"):
        path = Path(storage.removeprefix("journal:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    if "://" not in storage:
        raise ConfigError(
            f"The storage {without_user(storage)!r} is not known.",
            right=f"Storages are {STORAGES}.",
            next_step="Correct search.storage, or leave it out to keep the study in the run's folder.",
        )
    if storage.startswith("grpc://"):
        return _proxy(storage)
    if storage.startswith("sqlite:///"):
        path = Path(storage.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_sqlite(path)
        return get_storage(RDBStorage(storage, {"connect_args": {"timeout": SQLITE_PATIENCE_S}}))
    if with_driver(storage).startswith("postgresql+psycopg:"):
        require("psycopg", extra="postgresql", purpose="keep studies in PostgreSQL")
    try:
        return get_storage(RDBStorage(with_driver(storage), {"pool_pre_ping": True}))
    except ImportError as error:
        raise MissingDependencyError(
            f"The driver of the database {without_password(storage)} is not installed.",
            right="SQLAlchemy reaches a database through the driver that its URL names.",
            next_step="Install that, or keep the study in a journal or in PostgreSQL.",
        ) from error


def _proxy(storage: str) -> BaseStorage:
    address = urlsplit(storage)
    if address.hostname is None or address.port is None:
        raise ConfigError(
            f"The storage {storage!r} names no host and port.",
            right="Optuna's gRPC proxy is written grpc://HOST:PORT.",
            next_step="Correct search.storage or --storage.",
        )
    require("grpc", extra="grpc", purpose="reach a study through Optuna's gRPC proxy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=address.hostname, port=address.port)
    proxy.wait_server_ready(timeout=PROXY_PATIENCE_S)
    return proxy


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
    """Turn what a storage raises while it is used into a ``StorageError``, which shows no password."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError, OSError) as error:
        raise _translate(storage, str(error.__cause__ or error)) from error
    except Exception as error:
        if not type(error).__module__.startswith("grpc"):
            raise
        details: Any = getattr(error, "details", None)  # Of what a call failed; the error's own text is a page.
        raise _translate(storage, str(details() if callable(details) else error)) from error


@contextmanager
def _opening(storage: str) -> Iterator[None]:
    """Turn what a storage raises while a damaged file is read into a ``StorageError`` too."""
    try:
        with storage_errors(storage):
            yield
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise _translate(storage, f"malformed: {error}") from error


def _translate(storage: str, detail: str) -> StorageError:
    detail = hide(detail.splitlines()[0] if detail else "no detail", storage)
    shown = without_password(storage)
    if "full" in detail or "No space left" in detail:
        return StorageError(
            f"The disk that holds {shown} is full ({detail}).",
            right="The study needs a few megabytes free; every finished trial is kept.",
            next_step="Free space, then run the same command with --resume.",
        )
    if "locked" in detail:
        return StorageError(
            f"{shown} is locked ({detail}).",
            right=f"Several processes may write to a study file, each for less than {SQLITE_PATIENCE_S} s.",
            next_step="Stop the process that keeps it, then run the same command with --resume.",
        )
    if not is_file(storage):
        return StorageError(
            f"The study in {shown} cannot be reached ({detail}).",
            right="Its server runs and lets this user in; a PostgreSQL password is read from PGPASSWORD or ~/.pgpass.",
            next_step="Correct search.storage, or start the server, then run the same command again.",
        )
    return StorageError(
        f"The study in {shown} cannot be read ({detail}).",
        right="It is a file that Optuna wrote; nothing was changed in it.",
        next_step="Restore it from a copy, or move it away and start again without --resume.",
    )
