"""Make a package of any candidate of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autocompress.compression.methods import read_plan
from autocompress.config import RunConfig, load_config
from autocompress.errors import ConfigError
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.deliver import Examiner, measure_all, prove
from autocompress.pipeline.package import pack
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.setting import Setting, prepare
from autocompress.pipeline.summary import summarize
from autocompress.pipeline.workshop import Workshop
from autocompress.pipeline.workspace import existing
from autocompress.report.values import RunReport
from autocompress.search.records import Record, finalists, records
from autocompress.search.storage import open_study


def export(
    run_folder: Path,
    *,
    pick: str,
    engines: str | None,
    folder: Path,
    container: str | None = None,
    device: str | None = None,
    progress: Progress = quiet,
) -> RunReport:
    """Refine, export, prove and measure one candidate, write its package into ``folder``, and return its report.

    Args:
        run_folder: Of a run that has scored candidates.
        pick: ``best``, ``fastest`` or ``smallest`` of those within the allowed loss on validation documents, or
            ``trial:NUMBER`` by the number in the report.
        engines: Names with commas between, beside the device's own; ``None`` takes the run's.
        folder: Of the package.
        container: What a library for another device is written as, ``so`` or ``tar``; ``None`` takes the run's.
        device: Of a fleet, the name of the device that it is for; ``None`` is the first.
        progress: Told of every stage.

    Raises:
        ConfigError: There is no such candidate, or device.
        ParityError: An artifact does not compute what the student computes.
    """
    workspace = existing(run_folder)
    chosen = [] if container is None else [f"export.container={container}"]
    config = load_config(workspace.config, chosen)
    if engines is not None:  # The device's own engine stays: it is what the package is measured with.
        own = (seen.device.engine for seen in config.everywhere.values())
        formats = dict.fromkeys((*own, *engines.replace(" ", "").split(",")))
        config = load_config(workspace.config, [*chosen, f"export.formats=[{','.join(formats)}]"])
    found = records(open_study(workspace.storage(config), config.name, resume=True))
    everywhere = prepare(config, progress, workspace.predictor).everywhere
    name = device or config.device_name
    if name not in everywhere:
        raise ConfigError(
            f"The run has no device {name!r}.",
            right=f"Its devices are {', '.join(everywhere)}.",
            next_step="Correct --device, or leave it out for the first.",
        )
    setting = everywhere[name]
    found = [record.on(name) for record in found]
    place = workspace if name == config.device_name else workspace.on(name)
    place.create()
    record = choose(found, pick, floor=_floor(setting, config))
    made = Workshop(setting.students(progress)).make_all(setting, place, [read_plan(record.plan)])
    outcome, artifacts = prove(setting, made, measure_all(setting, made, progress), progress, Examiner())
    report = summarize(setting, outcome, found)
    pack(folder, setting, outcome, artifacts, report)
    return report


def _floor(setting: Setting, config: RunConfig) -> float:
    task = setting.teacher.task
    teacher = task.evaluate(predict_with(setting.teacher.model), "validation", limit=config.search.score_limit)
    return teacher.value - config.goal.max_drop_fraction


def choose(found: Sequence[Record], pick: str, *, floor: float) -> Record:
    """Return the candidate that ``pick`` names.

    Args:
        found: All candidates.
        pick: See ``export``.
        floor: Score that ``fastest`` and ``smallest`` must have, where any candidate has it.
    """
    if pick.startswith("trial:"):
        chosen = [record for record in found if pick == f"trial:{record.number}" and record.plan]
    else:
        scored = finalists([record for record in found if record.inside], len(found))
        good = [record for record in scored if (record.score or 0.0) >= floor] or scored
        keys: dict[str, Any] = {
            "best": lambda record: -(record.score or 0.0),
            "fastest": lambda record: record.latency_ms,
            "smallest": lambda record: record.cost["size_bytes"]["value"],
        }
        chosen = sorted(good, key=keys[pick])[:1] if pick in keys else []
    if not chosen:
        raise ConfigError(
            f"No candidate is picked by {pick!r}.",
            right="Pick best, fastest, smallest or trial:NUMBER; scored are "
            + (", ".join(str(record.number) for record in found if record.score is not None) or "none")
            + ".",
            next_step="Correct --pick; the report lists every candidate with its number.",
        )
    return chosen[0]
