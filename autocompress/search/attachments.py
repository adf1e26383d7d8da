"""Files of a run where Optuna's dashboard shows them: beside the study, or beside the trial that they came of.

An artifact store of Optuna's is a folder whose files are named by an id; what they are called is an attribute. Here
they are links, so that nothing is stored twice, and ids follow from names, so that a later delivery takes the place
of an earlier one. Optuna writes no attribute of a trial that is finished; the dashboard also reads the study's.
"""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta

UNKNOWN_TYPE = "application/octet-stream"


def attach(study: optuna.Study, store: Path, files: Iterable[Path], of_trials: Mapping[int, Iterable[Path]]) -> None:
    """Show ``files`` with the study, and others with the trials of these numbers; earlier ones are shown no more.

    Args:
        study: Of the run.
        store: Folder of the links, made if needed; what the dashboard is given as ``--artifact-dir``.
        files: That exist.
        of_trials: By number of the trial, the same.
    """
    storage: Any = study._storage
    store.mkdir(parents=True, exist_ok=True)
    shown = {f"artifacts:{_id(None, path)}": (_id(None, path), path) for path in files}
    for number, own in of_trials.items():
        trial = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        for path in own:
            artifact = _id(number, path)
            shown[f"dashboard:artifacts:{trial}:{artifact}"] = artifact, path
    earlier = [key for key in storage.get_study_system_attrs(study._study_id) if "artifacts:" in key]
    for key in (key for key in earlier if key not in shown):
        storage.set_study_system_attr(study._study_id, key, json.dumps(None))  # As the dashboard deletes them.
    for key, (artifact, path) in shown.items():
        link = store / artifact
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(path, store))
        kind, encoding = mimetypes.guess_type(path.name)
        about = ArtifactMeta(artifact, path.name, kind or UNKNOWN_TYPE, encoding)
        storage.set_study_system_attr(study._study_id, key, json.dumps(asdict(about)))


def _id(trial: int | None, path: Path) -> str:
    """Return what a file is called in the store, in the hexadecimal digits that the dashboard asks for."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{trial}/{path.parent.name}/{path.name}"))
