"""The best candidate so far as a package: whatever ends a search, from its first scored candidate on there is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from math import inf

from autocompress.compression.methods import read_plan
from autocompress.export.package import MANIFEST, Contents, write_package
from autocompress.models.load import adapter_of
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.finalists import export
from autocompress.pipeline.package import about, configuration
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import Workspace
from autocompress.search.records import Record, finalists


class SoFar:
    """Packs each candidate that is the best so far, as it was scored: not refined, not measured, not proven.

    Args:
        setting: As the device sees it for which is packed.
        students: Makes the candidate again where another process scored it.
        workspace: Of the device.
        known: Candidates that have a result already, as the device sees them.
    """

    def __init__(self, setting: Setting, students: Students, workspace: Workspace, known: Sequence[Record]) -> None:
        self._setting, self._students, self._workspace = setting, students, workspace
        packed, self._best = _packed(workspace), (-inf, -inf)
        for record in known:
            if record.number == packed:
                self._best = _merit(record)
        for record in finalists([record for record in known if record.inside], 1):
            self(record)

    def __call__(self, record: Record) -> None:
        """Pack a candidate if it fits the device and none before was as good.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        if record.score is None or not record.inside or _merit(record) <= self._best:
            return
        self._best = _merit(record)
        setting, plan = self._setting, read_plan(record.plan)
        student, config = self._students.make(plan), setting.config
        engine, tokens = config.device.engine, config.task.max_tokens
        stem = self._workspace.artifacts / "so_far"
        artifact = export(student, stem, engine, tokens, setting.target, setting.container)
        shape = adapter_of(student).shape(student)
        scored = {"value": record.score, "standard_error": record.standard_error, "split": "validation"}
        contents = Contents(
            artifacts={engine: artifact},
            save_reader=self._students.task(plan).save,
            config_text=configuration(config, plan, shape),
            manifest={**about(setting, shape), "verdict": "so far", "candidate": record.number, "score": scored},
        )
        write_package(self._workspace.so_far, contents)
        artifact.path.unlink()

    def discard(self) -> None:
        """Remove the package, once there is a better one."""
        shutil.rmtree(self._workspace.so_far, ignore_errors=True)


def _packed(workspace: Workspace) -> int | None:
    """Return which candidate is packed."""
    manifest = workspace.so_far / MANIFEST
    return int(json.loads(manifest.read_text(encoding="utf-8"))["candidate"]) if manifest.is_file() else None


def _merit(record: Record) -> tuple[float, float]:
    return record.score or 0.0, -record.latency_ms
