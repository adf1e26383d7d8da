"""What Optuna's dashboard shows of a finished run: reports with the study, artifacts with their trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autocompress.export.package import MANIFEST
from autocompress.pipeline.deliver import Finished
from autocompress.pipeline.summary import plan_identity
from autocompress.search.attachments import attach


def attach_results(study: Any, store: Path, finished: Sequence[Finished]) -> None:
    """Attach the report of each device; to each finalist's trial its artifact, and to the winner's the manifest.

    Args:
        study: Of the run.
        store: See ``attach``.
        finished: What each device is given; its report is written.
    """
    of_trials: dict[int, list[Path]] = defaultdict(list)
    for each in finished:
        for number, path in _of_finalists(each):
            of_trials[number].append(path)
    attach(study, store, [each.workspace.page for each in finished], of_trials)


def _of_finalists(finished: Finished) -> Iterator[tuple[int, Path]]:
    report = finished.workspace.report()
    artifacts = {plan_identity(item.plan.to_json()): item.artifact.path for item in finished.made if item.finalist}
    exported = {row.number for row in report.candidates if row.stage == "exported"}
    for record in finished.found:
        path = artifacts.pop(plan_identity(record.plan), None) if record.state != "failed" else None
        if path is not None:
            yield record.trial, path
            if record.number in exported:
                yield record.trial, finished.workspace.package(report.verdict) / MANIFEST
