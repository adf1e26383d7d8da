"""A worker joins a search: what it finds in the study, what it needs beside that, and what it does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.config import RunConfig, load_config, plain
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.guidance import Guidance
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.setting import Setting, prepare
from autocompress.pipeline.trials import STAGE, fingerprint_of, searched_space, try_candidates
from autocompress.pipeline.workspace import Workspace, existing
from autocompress.predictors.predictor import FittedPredictor
from autocompress.search import notes
from autocompress.search.lease import is_searched
from autocompress.search.records import Record
from autocompress.search.storage import check_bound, close, open_study, storage_errors
from autocompress.search.study import ANCHORS

RUN, PREDICTOR, FLEET, KNOWN, UNTIL = "run", "predictor", "fleet", "known", "until"
LOOK_S = 1.0
"""Seconds between two looks whether a search has come to its candidates."""


@dataclass(frozen=True)
class Invitation:
    """What a study says to who joins.

    Attributes:
        config: The run file, without a password.
        predictors: What says what a shape costs on each device, where it was fitted.
        known: What the search knew before its first candidate.
    """

    config: RunConfig
    predictors: Mapping[str, FittedPredictor]
    known: Guidance | None


def invite(study: Any, setting: Setting, known: Guidance | None) -> None:
    """Keep in the study what a worker needs to know, and how long candidates are asked for."""
    first, *others = setting.everywhere.items()
    notes.write(study, PREDICTOR, _noted(first[1]))
    if others:
        notes.write(study, FLEET, {name: _noted(each) for name, each in others})
    notes.write(study, KNOWN, None if known is None else known.to_dict())
    notes.write(study, RUN, plain(setting.config))
    study.set_user_attr(UNTIL, time.time() + setting.config.search.hours * 3600)


def _noted(setting: Setting) -> Mapping[str, object] | None:
    predictor = setting.predictor
    return predictor.to_dict() if isinstance(predictor, FittedPredictor) else None


def kept_guidance(study: Any) -> Guidance | None:
    """Return what the search knew before its first candidate, if the study keeps it: it decides the sequence."""
    known = notes.read(study, KNOWN)
    return None if known is None else Guidance.from_dict(known)


def work(run: str, *, storage: str | None = None, progress: Progress = quiet) -> list[Record]:
    """Work on the candidates of a search that runs elsewhere, until none is left, and return all of them.

    Args:
        run: The folder of the run, or with ``storage`` its name.
        storage: Where the study is; ``None``: where the run file in that folder says.
        progress: Told of each candidate, whoever scored it.

    Raises:
        ConfigError: There is no such folder.
        StorageError: There is no such study, no search of it runs, or this machine reads the run file otherwise.
        SourceError: The teacher was fitted elsewhere and is not here.
    """
    name, storage = _where(run, storage)
    study = open_study(storage, name, resume=True)
    with ExitStack() as held:
        held.callback(close, study)
        with storage_errors(storage):
            invitation = _await_invitation(study, name, progress)
        config = invitation.config
        setting = prepare(config, progress, lambda seen: invitation.predictors.get(seen.device_name), joining=True)
        check_bound(study, fingerprint_of(setting))
        students = setting.students(progress)
        space = searched_space(setting.config, students, progress)

        def out_of_time() -> bool:
            return time.time() > float(study.user_attrs[UNTIL])

        with storage_errors(storage):
            return try_candidates(
                study, setting, students, space, progress, invitation.known, anchors=None, out_of_time=out_of_time
            )


def _where(run: str, storage: str | None) -> tuple[str, str]:
    """Return the name of a study and its storage."""
    folder = Path(run)
    if storage is not None:
        return folder.name, storage
    if not folder.is_dir():
        raise ConfigError(
            f"{run} is not the folder of a run.",
            right="A worker is told the run's folder, or with --storage the run's name.",
            next_step="Correct the path, or add --storage with the search.storage of the run.",
        )
    workspace: Workspace = existing(folder)
    config = load_config(workspace.config)
    return config.name, workspace.storage(config)


def _await_invitation(study: Any, name: str, progress: Progress) -> Invitation:
    waits = 0
    while True:
        values: Mapping[str, Any] | None = notes.read(study, RUN)
        if values is not None and notes.read(study, ANCHORS) is not None:
            break
        if not is_searched(study):
            raise StorageError(
                f"The search {name!r} has not begun to try candidates, and no process goes on with it.",
                right="Workers join a search that runs, or one that had come to its candidates.",
                next_step="Start it with autocompress search RUN.yaml, or go on with it by --resume.",
            )
        if not waits:
            progress(STAGE, 0, 1, "waits for the search to come to its candidates")
        waits += 1
        time.sleep(LOOK_S)
    config = RunConfig.model_validate(values)
    noted = {config.device_name: notes.read(study, PREDICTOR), **(notes.read(study, FLEET) or {})}
    fitted = {name: FittedPredictor.from_dict(each) for name, each in noted.items() if each is not None}
    return Invitation(config, fitted, kept_guidance(study))
