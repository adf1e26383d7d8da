from __future__ import annotations

from dataclasses import replace

from autocompress.report.values import RunReport
from autocompress.report.verdict import UNCALIBRATED, verdict_text


def test_a_pass_says_for_every_limit_what_was_allowed_predicted_and_measured(report: RunReport) -> None:
    lines = verdict_text(report).splitlines()
    assert lines[0] == f"PASS  {report.title}"
    latency = next(line for line in lines if line.startswith("median latency"))
    assert " ".join(latency.split()) == "median latency pass 16.4 ms ≤ 18 ms 16.2 ms (15.4 to 17.0 ms)"
    assert next(line for line in lines if line.startswith("p95 latency")).split()[2] == "–"
    assert UNCALIBRATED not in verdict_text(report)


def test_columns_stand_under_each_other(report: RunReport) -> None:
    lines = verdict_text(report).splitlines()
    header = next(line for line in lines if "measured" in line and "budget" in line)
    for line in lines[lines.index(header) + 1 : lines.index(header) + 5]:
        for title in ("measured", "budget", "predicted"):
            at = header.index(title)
            assert line[at - 2 : at] == "  "
            assert line[at] != " "


def test_the_goal_and_the_gain_are_said_with_their_numbers(report: RunReport) -> None:
    text = verdict_text(report)
    assert (
        "teacher 95.07 %, student 94.06 % ± 0.51 on 2,189 examples; loses 1.01 points of 2.00 points allowed: pass"
        in text
    )
    assert "2.7× faster and 4.6× smaller than the teacher, both measured." in text


def test_a_broken_limit_is_loud(report: RunReport) -> None:
    slow = replace(report.limits[0], measured=18.5)
    text = verdict_text(replace(report, verdict="fail", limits=(slow, *report.limits[1:])))
    assert text.startswith("FAIL")
    assert "FAIL" in next(line for line in text.splitlines() if line.startswith("median latency"))


def test_an_infeasible_run_says_what_blocks_and_what_can_be_reached(infeasible_report: RunReport) -> None:
    text = verdict_text(infeasible_report)
    assert text.startswith("INFEASIBLE")
    assert infeasible_report.blocked in text
    assert infeasible_report.reachable in text
    assert "not measured" in text
    assert UNCALIBRATED in text
    assert "faster" not in text


def test_what_an_emulator_measured_is_never_said_to_be_measured(report: RunReport) -> None:
    emulated = replace(report, verdict="estimated", emulated="qemu-aarch64")
    text = verdict_text(emulated)
    assert "measured" not in text
    assert f"{report.device} (emulated by qemu-aarch64)" in text
    assert "whose times are no real device's" in text and "was not there" not in text
    assert "both emulated" in text
