"""The end of the main job for every device: its own best model, and of several devices the best for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autocompress.devices.paths import write_text
from autocompress.pipeline.deliver import Delivered, Examiner, Finished, deliver
from autocompress.pipeline.finalists import Made
from autocompress.pipeline.outcome import exceeded
from autocompress.pipeline.progress import Progress
from autocompress.report.fleet import FleetReport, FleetRow, FrontPoint
from autocompress.report.page import render
from autocompress.report.values import RunReport
from autocompress.report.verdict import where
from autocompress.search.records import Record, front


def deliver_all(finished: Mapping[str, Finished], progress: Progress) -> RunReport:
    """Prove, pack and report for each device by its name, and return the report of the first.

    Raises:
        ParityError: An artifact does not compute what its student computes.
    """
    ask = Examiner()
    own = {name: deliver(each, progress, ask) for name, each in finished.items()}
    fleet = _fleet(finished, own, progress, ask) if len(finished) > 1 else None
    for name, each in finished.items():
        write_text(each.workspace.result, json.dumps(own[name].report.to_dict(), indent=1) + "\n")
        write_text(each.workspace.page, render(own[name].report, fleet))
        if fleet is not None:
            write_text(each.workspace.fleet, json.dumps(fleet.to_dict(), indent=1) + "\n")
    return next(iter(own.values())).report


def fits_all(finished: Sequence[Finished]) -> str | None:
    """Return the name of the best finalist, by its validation score, that is inside every limit of every device.

    Measured where a device is measured; where it is not, one that was foreseen to be inside is.
    """
    inside = [{item.name: item for item in each.made if item.finalist and _fits(each, item)} for each in finished]
    first, *others = inside
    shared = [item for name, item in first.items() if all(name in other for other in others)]
    return max(shared, key=lambda item: item.validation).name if shared else None


def _fits(finished: Finished, item: Made) -> bool:
    if not finished.setting.feasibility.feasible:
        return False
    return not exceeded(finished.measured.by_name.get(item.name), finished.measured.limits)


def _fleet(
    finished: Mapping[str, Finished], own: Mapping[str, Delivered], progress: Progress, ask: Examiner
) -> FleetReport:
    model = fits_all(list(finished.values()))
    shared: dict[str, Delivered] = {}
    for name, each in finished.items() if model else ():
        if own[name].winner.name == model:
            shared[name] = own[name]
        else:
            (made,) = (item for item in each.made if item.name == model)
            shared[name] = deliver(each, progress, ask, made)
    rows = {name: _row(name, each, own[name]) for name, each in finished.items()}
    fronts = {name: tuple(map(_point, front([r for r in each.found if r.inside]))) for name, each in finished.items()}
    return FleetReport(
        own=tuple(replace(row, front=fronts[name]) for name, row in rows.items()),
        shared=tuple(_row(name, finished[name], given) for name, given in shared.items()),
    )


def _row(name: str, finished: Finished, given: Delivered) -> FleetRow:
    return FleetRow(
        device=name,
        where=where(given.report),
        model=given.winner.name,
        verdict=given.report.verdict,
        blocked=given.report.blocked,
        goal=given.report.goal,
        limits=given.report.limits,
        package=given.folder.name,
        page=finished.workspace.page.name,
    )


def _point(record: Record) -> FrontPoint:
    assert record.score is not None
    return FrontPoint(record.number, record.latency_ms, record.score, record.label)
