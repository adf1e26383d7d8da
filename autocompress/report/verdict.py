"""The verdict as lines of plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.report.fleet import FleetReport, FleetRow
from autocompress.report.units import ABSENT, TITLES, figure, give_or_take, interval, percent, points, ratio
from autocompress.report.values import GoalRow, LimitRow, RunReport

UNCALIBRATED = "estimated, not calibrated"
WORDS = {"pass": "PASS", "fail": "FAIL", "infeasible": "INFEASIBLE", "estimated": "ESTIMATED"}
SENTENCES = {
    "pass": "Every limit is met, as measured on the device.",
    "fail": "The exported model breaks a limit or the goal.",
    "infeasible": "No candidate fits the budget; the closest attempt is kept.",
    "estimated": "Every limit should be met, but the device was not there to measure on.",
}
FLEET_HEADER = ("device", "model", "verdict", "score", "package", "limit", "", "measured", "budget", "predicted")
EMULATED = "Every limit is met on an emulated device, whose times are no real device's; measure on one."


def verdict_text(report: RunReport) -> str:
    """Return the verdict: one line a limit with outcome, measurement, budget and prediction, then the goal."""
    lines = [f"{WORDS[report.verdict]}  {report.title}", sentence(report), where(report), ""]
    header = ("", "", how(report), "budget", "predicted")
    lines += _aligned([header, *(limit_cells(row) for row in report.limits)])
    if report.goal is not None:
        lines += ["", goal_line(report.goal)]
    lines += ([gain] if (gain := gains(report)) else []) + [line for line in (report.blocked, report.reachable) if line]
    lines += [f"{row.count} × {row.reason}" for row in report.failures]
    if not report.predictor.calibrated:
        lines.append(f"Predictions are {UNCALIBRATED}: {report.predictor.source}.")
    return "\n".join(lines)


def sentence(report: RunReport) -> str:
    """Say what the verdict means."""
    return EMULATED if report.verdict == "estimated" and report.emulated else SENTENCES[report.verdict]


def how(report: RunReport) -> str:
    """Say in one word how figures came about that were not predicted."""
    return "emulated" if report.emulated else "measured"


def where(report: RunReport) -> str:
    """Say on what everything was measured."""
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    device = f"{report.device} (emulated by {report.emulated})" if report.emulated else report.device
    return f"{device}, {report.engine}, {threads}"


def outcome(passed: bool | None) -> str:
    """Say in one word how a limit went; ``None`` is a row that has no limit or no measurement."""
    return ABSENT if passed is None else "pass" if passed else "FAIL"


def limit_cells(row: LimitRow) -> tuple[str, str, str, str, str]:
    """Return figure, outcome, measurement, budget and prediction of one limit."""
    budget = "no limit" if row.budget is None else f"≤ {figure(row.name, row.budget)}"
    measured = "not measured" if row.measured is None else figure(row.name, row.measured)
    return TITLES[row.name], outcome(row.passed), measured, budget, interval(row.name, row.predicted)


def fleet_text(fleet: FleetReport) -> str:
    """Return a line a device and limit with the device's own best model, then the same of what fits all."""
    lines = ["", "Best model of each device:", *_aligned([FLEET_HEADER, *fleet_cells(fleet.own)]), ""]
    lines.append(shared_line(fleet))
    if fleet.shared:
        lines += _aligned([FLEET_HEADER, *fleet_cells(fleet.shared)])
    return "\n".join(lines + [f"{row.device}: {row.blocked}" for row in fleet.own if row.blocked])


def shared_line(fleet: FleetReport) -> str:
    """Say which model fits all devices."""
    if not fleet.shared:
        return "No model that was made fits every device."
    return f"Best model for all {len(fleet.shared)} devices: {fleet.shared[0].model}."


def fleet_cells(rows: Sequence[FleetRow]) -> list[tuple[str, ...]]:
    """Return a row a device and limit; what is said of the device stands in its first."""
    cells = []
    for row in rows:
        score = ABSENT if row.goal is None else give_or_take(row.goal.student, row.goal.standard_error)
        first: tuple[str, ...] = (row.device, row.model, WORDS[row.verdict], score, row.package)
        for limit in row.limits:
            if limit.budget is not None:
                cells.append((*first, *limit_cells(limit)))
                first = ("",) * len(first)
    return cells


def goal_line(goal: GoalRow) -> str:
    """Say how the student's score compares with the teacher's."""
    change = "loses" if goal.drop_points >= 0 else "gains"
    return (
        f"{goal.metric}: teacher {percent(goal.teacher, 2)}, student {percent(goal.student, 2)}"
        f" ± {100 * goal.standard_error:.2f} on {goal.examples:,} examples;"
        f" {change} {points(abs(goal.drop_points))} of {points(goal.max_drop_points)} allowed: {outcome(goal.passed)}"
    )


def gains(report: RunReport) -> str:
    """Say how much faster and smaller the measured student is than the measured teacher; empty without both."""
    teacher, student = report.only("teacher"), report.only("student")
    if teacher is None or student is None:
        return ""
    faster = ratio(teacher.latency_p50_ms, student.latency_p50_ms)
    smaller = ratio(teacher.size_bytes, student.size_bytes)
    return f"{faster} faster and {smaller} smaller than the teacher, both {how(report)}."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
