"""What the package of a winner says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autocompress.config import RunConfig, to_yaml
from autocompress.cost import Artifact
from autocompress.export.package import Contents, write_package
from autocompress.feeds import feeds_of
from autocompress.models.load import adapter_of
from autocompress.pipeline.outcome import Outcome
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import versions
from autocompress.plan import CompressionPlan
from autocompress.report.values import RunReport
from autocompress.shape import ModelShape


def pack(
    folder: Path, setting: Setting, outcome: Outcome, artifacts: Mapping[str, Artifact], report: RunReport
) -> None:
    """Write artifacts, what makes their feeds, ``config.yaml`` (the found configuration) and ``manifest.json``."""
    winner = outcome.winner
    shape = adapter_of(winner.student).shape(winner.student)
    manifest = {
        **about(setting, shape),
        "verdict": report.verdict,
        "measured": {name: value.to_dict() for name, value in outcome.measured.items() if name == winner.name},
        "limits": dict(outcome.limits),
        "scores": {name: asdict(value) for name, value in outcome.scores.items()},
        "agreements": {name: asdict(value) for name, value in outcome.agreements.items()},
        "parity": [{**asdict(value), "passed": value.passed} for value in outcome.parities],
    }
    contents = Contents(
        artifacts=artifacts,
        save_reader=winner.task.save,
        config_text=configuration(setting.config, winner.plan, shape),
        manifest=manifest,
    )
    write_package(folder, contents)


def about(setting: Setting, shape: ModelShape) -> dict[str, object]:
    """Return what a manifest says of any student of a run: where it came from, and what is foreseen of it."""
    config = setting.config
    return {
        "engine": config.device.engine,
        "device": setting.profile.name,
        "threads": config.device.threads,
        "tokens": config.task.max_tokens,
        "feeds": [feed.to_dict() for feed in feeds_of(shape.pixels)],
        "labels": list(setting.teacher.task.dataset.classes),
        "metric": config.task.metric,
        "student": shape.describe(),
        "predicted": setting.predictor.predict(shape, config.task.max_tokens).to_dict(),
        "seeds": {"search": config.search.seed},
        "versions": versions(),
        "teacher": {"source": config.model.source, "fingerprint": setting.teacher.fingerprint},
        "start": _start(config),
    }


def configuration(config: RunConfig, plan: CompressionPlan, shape: ModelShape) -> str:
    """Return the found configuration, as YAML."""
    found = {
        "model": config.model.source,
        "start": _start(config),
        "student": shape.describe(),
        "plan": _plain(plan.to_json()),
        "shape": _plain(shape.to_dict()),
    }
    return to_yaml(found)


def _start(config: RunConfig) -> str:
    return (config.model.student or config.model).source


def _plain(value: Any) -> Any:
    """Return JSON values for YAML: tuples become lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
