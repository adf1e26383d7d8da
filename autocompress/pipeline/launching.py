"""Workers that the search itself places on other machines, for as long as it tries candidates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from autocompress._optional import require
from autocompress.errors import ConfigError
from autocompress.pipeline.joining import work
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.trials import STAGE
from autocompress.search.address import is_file, without_password

Launch: TypeAlias = Callable[[str, str, Progress], AbstractContextManager[None]]
"""Of the name of a run, its storage, and what is told of it; entered when the study has what a worker needs."""
HOME = "AUTOCOMPRESS_HOME"
ENDING_S = 5.0
"""Seconds that workers get to see that nothing is left; a search ends when nobody has a candidate in hand."""


@contextmanager
def alone(name: str, storage: str, progress: Progress) -> Iterator[None]:
    """Place nobody: workers come by themselves, or not at all."""
    yield


def on_ray(workers: int) -> Launch:
    """Return what places so many workers on a Ray cluster: the one that is found, else one of this machine.

    A worker takes one processor of the cluster, and waits for it. What Ray loses is a lost worker to the study, and Ray
    starts another in its stead.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    ray = require("ray", extra="ray", purpose="place workers on a Ray cluster")

    @contextmanager
    def launch(name: str, storage: str, progress: Progress) -> Iterator[None]:
        _connect(ray)
        try:
            _check_reachable(ray, storage)
            place = ray.remote(num_cpus=1)(_join)
            here = str(Path.cwd()), os.environ.get(HOME)
            tasks = [place.remote(name, _absolute(storage), *here) for _ in range(workers)]
            progress(STAGE, 0, 1, f"{workers} workers are placed on Ray")
            ended: list[Any] = []
            try:
                yield
                ended, _ = ray.wait(tasks, num_returns=workers, timeout=ENDING_S)
            finally:
                for task in tasks:
                    if task not in ended:
                        ray.cancel(task, force=True)
            for reason in {str(error) for task in ended if (error := _error(ray, task))}:
                progress(STAGE, 1, 1, f"a worker on Ray did not end well: {reason.splitlines()[-1]}")
        finally:
            ray.shutdown()

    return launch


def _connect(ray: ModuleType) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Else they get what the search leaves over, which is nothing.
    quiet = {"logging_level": "error", "log_to_driver": False}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:  # There is none.
        ray.init(include_dashboard=False, **quiet)


def _check_reachable(ray: ModuleType, storage: str) -> None:
    """Refuse a study in a file where the cluster has other machines."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if is_file(storage) and len(machines | {ray.util.get_node_ip_address()}) > 1:
        raise ConfigError(
            f"The study is kept in {without_password(storage)}, and the Ray cluster has {len(machines)} machines.",
            right="Workers on other machines reach a study in PostgreSQL, or behind Optuna's gRPC proxy.",
            next_step="Add search.storage=postgresql://USER@HOST/DATABASE, or leave --launch out.",
        )


def _absolute(storage: str) -> str:
    """Return a storage that means the same in every folder of this machine."""
    for kind in ("journal:", "sqlite:///"):
        if storage.startswith(kind):
            return f"{kind}{Path(storage.removeprefix(kind)).absolute()}"
    return storage


def _join(name: str, storage: str, folder: str, home: str | None) -> int:
    """Work where the search was started, if there is such a folder, and return how many candidates there are."""
    if Path(folder).is_dir():
        os.chdir(folder)
    if home is not None:
        os.environ[HOME] = home
    return len(work(name, storage=storage))


def _error(ray: ModuleType, task: Any) -> Exception | None:
    try:
        ray.get(task)
    except Exception as error:  # Whatever ended a worker is its own; the search has all that it needs.
        return error
    return None
