"""The folder of a run: what is in it, and how stages leave traces there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from autocompress.config import RunConfig, dump_config
from autocompress.devices.paths import write_text
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.progress import Progress
from autocompress.predictors.predictor import FittedPredictor, Predictor
from autocompress.predictors.store import find, load, save
from autocompress.report.fleet import FleetReport
from autocompress.report.values import RunReport, Verdict

T = TypeVar("T")
PACKAGES = ("autocompress", "torch", "transformers", "optuna", "onnx", "onnxruntime", "apache-tvm", "numpy")
FREE_BYTES = 512 * 2**20
"""Room that a run needs for its study, students and packages."""


@dataclass(frozen=True)
class Workspace:
    """Paths of one run.

    Attributes:
        folder: ``runs_folder/name``.
        device: Name of the further device of a fleet of which the artifacts, packages and reports are asked for; empty
            for the first.
    """

    folder: Path
    device: str = ""

    @classmethod
    def of(cls, config: RunConfig) -> Workspace:
        """Return the workspace of a run; nothing is created."""
        return cls(Path(config.runs_folder) / config.name)

    def on(self, device: str) -> Workspace:
        """Return the paths of a further device of the fleet; what belongs to no device stays where it is."""
        return replace(self, device=device)

    def _own(self, name: str, suffix: str = "") -> Path:
        return self.folder / f"{name}{'-' if self.device else ''}{self.device}{suffix}"

    @property
    def config(self) -> Path:
        """The resolved run file."""
        return self.folder / "run.yaml"

    @property
    def lock(self) -> Path:
        """Versions and machine."""
        return self.folder / "lock.json"

    @property
    def events(self) -> Path:
        """One JSON line a step of progress, for ``status`` in another shell."""
        return self.folder / "events.jsonl"

    @property
    def students(self) -> Path:
        """Refined students, so that resuming trains none twice."""
        return self.folder / "students"

    @property
    def artifacts(self) -> Path:
        """What is built of students for the device."""
        return self.students / self.device

    @property
    def result(self) -> Path:
        """The report's values, as JSON."""
        return self._own("result", ".json")

    @property
    def page(self) -> Path:
        """The report, as HTML."""
        return self._own("report", ".html")

    @property
    def best(self) -> Path:
        """The package of the winner."""
        return self._own("best")

    @property
    def so_far(self) -> Path:
        """The package of the best candidate so far, while the run has no winner."""
        return self._own("best-so-far")

    @property
    def closest(self) -> Path:
        """The package of the best attempt, where nothing fits."""
        return self._own("closest")

    @property
    def shared(self) -> Path:
        """The package of the best model for a whole fleet, where the device has a better one of its own."""
        return self._own("shared")

    @property
    def fleet(self) -> Path:
        """What the devices of a fleet are given, as JSON."""
        return self.folder / "fleet.json"

    @property
    def attached(self) -> Path:
        """What Optuna's dashboard shows beside the study: links, by its own names."""
        return self.folder / "artifacts"

    def package(self, verdict: Verdict) -> Path:
        """Return where the winner's package is."""
        return self.best if verdict in ("pass", "estimated") else self.closest

    @property
    def learnt(self) -> Path:
        """Folder of the predictor that has seen what was measured at the end."""
        return self.folder / "learnt"

    def predictor(self, config: RunConfig) -> FittedPredictor | None:
        """Return the predictor that the run began with, if it was a fitted one.

        Raises:
            StorageError: It is damaged.
        """
        device = config.device
        path = find((self.folder,), device.profile, device.engine, device.threads)
        return None if path is None else load(path)

    def report(self) -> RunReport:
        """Return the report of a finished run.

        Raises:
            StorageError: The run is not finished, or its result is damaged.
        """
        return self._read(self.result, RunReport.from_dict)

    def fleet_report(self) -> FleetReport | None:
        """Return what the devices of a finished run's fleet are given; ``None`` where it has one device.

        Raises:
            StorageError: It is damaged.
        """
        if not self.fleet.is_file():
            return None
        return self._read(self.fleet, FleetReport.from_dict)

    def _read(self, path: Path, values: Callable[[Any], T]) -> T:
        try:
            return values(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{path} cannot be read ({type(error).__name__}).",
                right="A finished run has one.",
                next_step=f"See how far it is with autocompress status {self.folder}, or finish it with --resume.",
            ) from None

    def storage(self, config: RunConfig) -> str:
        """Return where the study is kept."""
        return config.search.storage or f"journal:{self.folder / 'study.log'}"

    def create(self) -> None:
        """Make the folder; what is there stays.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
        """
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < FREE_BYTES:
                raise OSError(28, f"only {free / 2**20:.0f} MiB are free")
        except OSError as error:
            raise StorageError(
                f"The run's folder {self.folder} cannot be written ({error.strerror or error}).",
                right=f"A run needs a folder that can be written and {FREE_BYTES / 2**20:.0f} MiB free.",
                next_step="Free space, or set runs_folder to another place.",
            ) from None

    def keep(self, predictor: Predictor) -> None:
        """Keep the predictor of the run: what other runs teach the device's own would change what is reachable."""
        if isinstance(predictor, FittedPredictor):
            save(predictor, self.folder)

    def describe(self, config: RunConfig) -> None:
        """Write the resolved run file and the versions."""
        write_text(self.config, dump_config(config))
        write_text(self.lock, json.dumps(versions(), indent=2) + "\n")

    def noting(self, progress: Progress) -> Progress:
        """Return a progress that also writes to ``events``."""

        def note(stage: str, done: int, total: int, text: str) -> None:
            event = {"time": time.time(), "pid": os.getpid(), "stage": stage, "done": done, "total": total}
            with self.events.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**event, "note": text}) + "\n")
            progress(stage, done, total, text)

        return note


def existing(folder: Path) -> Workspace:
    """Return the workspace of a run that was started before.

    Raises:
        ConfigError: The folder is no run.
    """
    workspace = Workspace(folder)
    if not workspace.config.is_file():
        raise ConfigError(
            f"{folder} is not the folder of a run: it has no run.yaml.",
            right="A run's folder is runs_folder/name, e.g. runs/quickstart.",
            next_step="Start one with autocompress search RUN.yaml, or correct the path.",
        )
    return workspace


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
