"""Where a run is, read from what it leaves on disk."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.config import load_config
from autocompress.pipeline.workspace import Workspace, existing
from autocompress.search.places import Ledger
from autocompress.search.records import Record, finalists, front, record_of
from autocompress.search.storage import open_study
from autocompress.search.workers import worker_of


@dataclass(frozen=True)
class Stage:
    """One stage: steps done and in all, time taken and left (h:mm:ss, or empty), and its last note."""

    name: str
    done: int
    total: int
    elapsed: str
    left: str
    note: str


@dataclass(frozen=True)
class Status:
    """A run from outside.

    Attributes:
        alive: Whether its process exists.
        finished: Whether it has a result.
        stages: In the order they began.
        best: The best scored candidate.
        package: Where that is packed, while the run has no winner.
        front: Those that are better than all faster ones, the fastest first.
        counts: Candidates by state.
        failures: Those that failed by the kind of reason.
        at_work: Candidates in work by machine.
    """

    alive: bool
    finished: bool
    stages: Sequence[Stage]
    best: Record | None
    package: Path | None
    front: Sequence[Record]
    counts: Mapping[str, int]
    failures: Mapping[str, int]
    at_work: Mapping[str, int]


def read_status(folder: Path) -> Status:
    """Return where the run in ``folder`` is.

    Raises:
        ConfigError: The folder is no run.
        StorageError: Its study cannot be read.
    """
    workspace = existing(folder)
    events = read_events(workspace)
    ledger = _ledger(workspace)
    found = [record_of(place, trial) for place, trial in ledger.results()] if ledger else []
    workers = [worker for trial in (ledger.open_trials() if ledger else ()) if (worker := worker_of(trial))]
    best = finalists(found, 1)
    return Status(
        alive=bool(events) and not workspace.result.is_file() and _exists(int(events[-1]["pid"])),
        finished=workspace.result.is_file(),
        stages=_stages(events),
        best=best[0] if best else None,
        package=workspace.so_far if workspace.so_far.is_dir() else None,
        front=front(found),
        counts=Counter(record.state for record in found),
        failures=Counter(record.reason.split(":")[0] for record in found if record.state == "failed"),
        at_work=Counter(worker.host for worker in workers if not worker.gone()),
    )


def read_events(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the run's events; a line that a killed process left unfinished is not one."""
    if not workspace.events.is_file():
        return []
    events = []
    for line in workspace.events.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def _ledger(workspace: Workspace) -> Ledger | None:
    """Return the candidates of a run; ``None`` where it has not come to them."""
    config = load_config(workspace.config)
    storage = workspace.storage(config)
    path = Path(storage.split(":", 1)[1].removeprefix("///"))
    if not path.exists() and storage.startswith(("journal:", "sqlite:")):
        return None
    ledger = Ledger(open_study(storage, config.name, resume=True))
    ledger.refresh()
    return ledger


def _stages(events: Sequence[Mapping[str, Any]]) -> list[Stage]:
    first: dict[str, Mapping[str, Any]] = {}
    last: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name = event["stage"]
        if name not in first or event["done"] < last[name]["done"]:
            first[name] = event
        last[name] = event
    return [_stage(first[name], last[name]) for name in first]


def _stage(first: Mapping[str, Any], last: Mapping[str, Any]) -> Stage:
    seconds, steps = last["time"] - first["time"], last["done"] - first["done"]
    left = seconds / steps * (last["total"] - last["done"]) if steps > 0 else None
    return Stage(last["stage"], last["done"], last["total"], _clock(seconds), _clock(left), last["note"])


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
