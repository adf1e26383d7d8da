"""What the package of a winner says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autocompress.config import to_yaml
from autocompress.cost import Artifact
from autocompress.export.package import Contents, write_package
from autocompress.models.load import adapter_of
from autocompress.pipeline.outcome import Outcome
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import versions
from autocompress.report.values import RunReport


def pack(
    folder: Path, setting: Setting, outcome: Outcome, artifacts: Mapping[str, Artifact], report: RunReport
) -> None:
    """Write artifacts, tokenizer, ``config.yaml`` (the found configuration) and ``manifest.json`` into ``folder``."""
    config, winner = setting.config, outcome.winner
    shape = adapter_of(winner.student).shape(winner.student)
    tokens, start = config.task.max_tokens, (config.model.student or config.model).source
    found = {
        "model": config.model.source,
        "start": start,
        "student": shape.describe(),
        "plan": _plain(winner.plan.to_json()),
        "shape": _plain(shape.to_dict()),
    }
    manifest = {
        "engine": config.device.engine,
        "device": setting.profile.name,
        "threads": config.device.threads,
        "tokens": tokens,
        "labels": list(setting.teacher.task.dataset.classes),
        "metric": config.task.metric,
        "verdict": report.verdict,
        "student": shape.describe(),
        "predicted": setting.predictor.predict(shape, tokens).to_dict(),
        "measured": {name: value.to_dict() for name, value in outcome.measured.items() if name == winner.name},
        "limits": dict(outcome.limits),
        "scores": {name: asdict(value) for name, value in outcome.scores.items()},
        "agreements": {name: asdict(value) for name, value in outcome.agreements.items()},
        "parity": [{**asdict(value), "passed": value.passed} for value in outcome.parities],
        "seeds": {"search": config.search.seed},
        "versions": versions(),
        "teacher": {"source": config.model.source, "fingerprint": setting.teacher.fingerprint},
        "start": start,
    }
    contents = Contents(
        artifacts=artifacts,
        save_tokenizer=lambda place: winner.task.tokenizer.save_pretrained(place),
        config_text=to_yaml(found),
        manifest=manifest,
    )
    write_package(folder, contents)


def _plain(value: Any) -> Any:
    """Return JSON values for YAML: tuples become lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
