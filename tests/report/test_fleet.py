from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocompress.errors import StorageError
from autocompress.report.fleet import FleetReport, FleetRow, FrontPoint
from autocompress.report.page import render
from autocompress.report.values import RunReport
from autocompress.report.verdict import fleet_text, where

FRONT = (FrontPoint(4, 7.0, 0.91, "2 layers x 384"), FrontPoint(9, 16.2, 0.93, "4 layers <x> 384"))


@pytest.fixture
def fleet(report: RunReport) -> FleetReport:
    """Two devices, of which the second gets nothing that fits it."""
    first = FleetRow(
        device="raspberry-pi-5",
        where=where(report),
        model="candidate 1",
        verdict="pass",
        blocked="",
        goal=report.goal,
        limits=report.limits,
        package="best",
        page="report.html",
        front=FRONT,
    )
    other = replace(
        first,
        device="pixel-8",
        model="candidate 2",
        verdict="infeasible",
        blocked="Blocked by size on disk.",
        limits=tuple(replace(limit, measured=None) for limit in report.limits),
        package="closest-pixel-8",
        page="report-pixel-8.html",
        front=(),
    )
    return FleetReport(own=(first, other), shared=())


def test_it_reads_back_from_json(fleet: FleetReport) -> None:
    assert FleetReport.from_dict(json.loads(json.dumps(fleet.to_dict()))) == fleet
    with pytest.raises(StorageError, match="FleetReport"):
        FleetReport.from_dict({"own": []})


def test_a_fleet_is_served_when_each_device_is(fleet: FleetReport) -> None:
    assert not fleet.served
    assert replace(fleet, own=fleet.own[:1]).served
    assert replace(fleet, own=(replace(fleet.own[1], verdict="estimated"),)).served


def test_the_terminal_tells_each_device_with_each_limit_and_which_model_fits_all(fleet: FleetReport) -> None:
    text = fleet_text(fleet)
    first, *_ = (" ".join(line.split()) for line in text.splitlines() if line.startswith("raspberry-pi-5"))
    assert first == (
        "raspberry-pi-5 candidate 1 PASS 94.06 % ± 0.51 best"
        " median latency pass 16.4 ms ≤ 18 ms 16.2 ms (15.4 to 17.0 ms)"
    )
    limited = [limit for limit in fleet.own[0].limits if limit.budget is not None]
    assert text.count("≤") == 2 * len(limited) and text.count("not measured") == len(limited)
    assert "No model that was made fits every device." in text
    assert text.splitlines()[-1] == "pixel-8: Blocked by size on disk."
    both = replace(fleet, shared=tuple(replace(row, model="candidate 3") for row in fleet.own))
    assert "Best model for all 2 devices: candidate 3." in fleet_text(both)


def test_every_page_tells_the_fleet_and_leads_to_the_others(report: RunReport, fleet: FleetReport) -> None:
    page = render(report, fleet)
    assert "<h2>Fleet</h2>" in page and "<h2>Fleet</h2>" not in render(report)
    for row in fleet.own:
        assert f'href="{row.page}"' in page and row.model in page and row.package in page
    assert 'id="fronts"' in page and "4 layers <x> 384" not in page
    assert 'id="fronts"' not in render(report, replace(fleet, own=fleet.own[1:]))
