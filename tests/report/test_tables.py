from __future__ import annotations

from dataclasses import replace

from autocompress.report import tables
from autocompress.report.values import RunReport
from tests.report.test_markup import Reader


def test_the_student_stands_out_and_its_speed_up_is_over_the_measured_teacher(report: RunReport) -> None:
    teacher, student = report.only("teacher"), report.only("student")
    assert teacher is not None
    assert student is not None
    drawn = tables.baselines([student], teacher)
    assert ("tr", {"class": "chosen"}) in Reader(drawn).tags
    assert f"{teacher.latency_p50_ms / student.latency_p50_ms:.1f}×" in drawn
    assert "×" not in tables.baselines([student], None)


def test_a_candidate_over_budget_names_every_limit_that_it_breaks(report: RunReport) -> None:
    over = replace(report.candidates[0], violated=("latency_p50_ms", "size_bytes"))
    drawn = Reader(tables.candidates([over]))
    assert "over median latency, size on disk" in drawn.text
    assert ("tr", {"class": "dim"}) in drawn.tags


def test_a_failed_limit_and_a_failed_parity_are_marked_bad(report: RunReport) -> None:
    limits = tables.limits([replace(report.limits[0], measured=18.5)])
    parity = tables.parity([replace(report.parity[0], passed=False)])
    for drawn in (limits, parity):
        assert ("span", {"class": "bad"}) in Reader(drawn).tags
        assert "FAIL" in drawn
