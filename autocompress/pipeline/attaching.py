"""What Optuna's dashboard shows of a finished run: the report with the study, artifacts with their trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autocompress.export.package import MANIFEST
from autocompress.pipeline.finalists import Made
from autocompress.pipeline.summary import plan_identity
from autocompress.pipeline.workspace import Workspace
from autocompress.report.values import RunReport
from autocompress.search.attachments import attach
from autocompress.search.records import Record


def attach_results(
    study: Any, workspace: Workspace, made: Sequence[Made], found: Sequence[Record], report: RunReport
) -> None:
    """Attach the report to the study; to each finalist's trial its artifact, and to the winner's the manifest."""
    of_trials = dict(_of_finalists(workspace, made, found, report))
    attach(study, workspace.attached, [workspace.page], of_trials)


def _of_finalists(
    workspace: Workspace, made: Sequence[Made], found: Sequence[Record], report: RunReport
) -> Iterator[tuple[int, list[Path]]]:
    artifacts = {plan_identity(item.plan.to_json()): item.artifact.path for item in made if item.finalist}
    exported = {row.number for row in report.candidates if row.stage == "exported"}
    for record in found:
        path = artifacts.pop(plan_identity(record.plan), None) if record.state != "failed" else None
        if path is not None:
            manifest = [workspace.package(report.verdict) / MANIFEST] if record.number in exported else []
            yield record.trial, [path, *manifest]
