"""The tables of the page."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.report.markup import Html, Row, join, table, tag
from autocompress.report.units import ABSENT, TITLES, figure, give_or_take, interval, percent, points, ratio
from autocompress.report.values import (
    BaselineRow,
    CandidateRow,
    FailureRow,
    GoalRow,
    LimitRow,
    ParityRow,
    PredictorHealth,
)
from autocompress.report.verdict import goal_line, limit_cells, outcome


def limits(rows: Sequence[LimitRow], how: str = "measured") -> Html:
    """Return one row a figure: outcome, measurement (a column called ``how``), budget, prediction."""

    def row(limit: LimitRow) -> Row:
        name, _, *figures = limit_cells(limit)
        return Row((name, _mark(limit.passed), *figures))

    header = ("limit", "outcome", how, "budget", "predicted")
    return table(header, map(row, rows), words=2, caption="Every limit")


def goal(row: GoalRow) -> Html:
    """Return the student's score against the teacher's, as one row."""
    cells = (
        row.metric,
        _mark(row.passed),
        points(row.drop_points),
        f"≤ {points(row.max_drop_points)}",
        give_or_take(row.student, row.standard_error),
        percent(row.teacher, 2),
    )
    header = ("metric", "outcome", "loss", "allowed", "student", "teacher")
    return table(header, [Row(cells)], words=2, caption=goal_line(row))


def baselines(rows: Sequence[BaselineRow], teacher: BaselineRow | None) -> Html:
    """Return the measured models, with their speed-up over ``teacher``; the student stands out."""

    def row(model: BaselineRow) -> Row:
        cells = (
            model.name,
            percent(model.score, 2),
            percent(model.agreement, 2),
            figure("latency_p50_ms", model.latency_p50_ms),
            figure("latency_p95_ms", model.latency_p95_ms),
            ratio(teacher.latency_p50_ms, model.latency_p50_ms) if teacher else ABSENT,
            figure("peak_memory_bytes", model.peak_memory_bytes),
            figure("size_bytes", model.size_bytes),
            f"{model.samples:,}",
        )
        return Row(cells, "chosen" if model.role == "student" else "")

    header = ("model", "score", "as the teacher", "median", "p95", "speed-up", "peak memory", "size", "runs")
    return table(header, map(row, rows), caption="Measured models")


def candidates(rows: Sequence[CandidateRow]) -> Html:
    """Return the candidates as given; the exported one stands out, those over budget or stopped early stand back."""

    def row(candidate: CandidateRow) -> Row:
        over = ", ".join(TITLES.get(name, name) for name in candidate.violated)
        plan = join([tag("b", candidate.label), candidate.plan_summary]) if candidate.label else candidate.plan_summary
        cells = (
            f"#{candidate.number}",
            f"over {over}" if over else candidate.stage,
            plan,
            give_or_take(candidate.score, candidate.standard_error),
            interval("latency_p50_ms", candidate.latency_p50_ms),
            figure("latency_p50_ms", candidate.measured_p50_ms),
            figure("peak_memory_bytes", candidate.peak_memory_bytes),
            figure("size_bytes", candidate.size_bytes),
        )
        back = over or candidate.stage == "stopped"
        return Row(cells, "chosen" if candidate.stage == "exported" else "dim" if back else "")

    header = ("trial", "stage", "plan", "score", "latency, predicted", "measured", "memory", "size")
    return table(header, map(row, rows), words=3, caption="Candidates, best score first")


def predictor(health: PredictorHealth) -> Html:
    """Return what is known of the predictor's error."""
    emulated = [("emulated by", f"{health.emulator}: these are no device's times")] if health.emulator else []
    failed = [("could not be measured", health.failed)] if health.failed else []
    rows = (
        ("source", health.source),
        *emulated,
        ("fitted on", f"{health.samples:,} samples"),
        *failed,
        ("mean error on held-out samples", percent(health.held_out_mape)),
        ("held-out samples within 10 %", percent(health.within_10_percent)),
        ("held-out samples inside their interval", percent(health.coverage)),
    )
    return table(("latency predictor", ""), map(Row, rows), words=2, caption="The latency predictor")


def parity(rows: Sequence[ParityRow]) -> Html:
    """Return each exported artifact against the torch student."""

    def row(artifact: ParityRow) -> Row:
        cells = (
            artifact.engine,
            _mark(artifact.passed),
            f"{artifact.max_abs_logit_diff:.2e}" + (f" ({artifact.beyond} beyond)" if artifact.beyond else ""),
            f"{artifact.tolerance:.0e}",
            percent(artifact.argmax_agreement, 2),
            percent(artifact.torch_score, 2),
            percent(artifact.artifact_score, 2),
        )
        return Row(cells)

    scores = ("score in torch", "score exported")
    header = ("engine", "outcome", "largest logit difference", "allowed", "same answer", *scores)
    return table(header, map(row, rows), words=2, caption="Parity of the artifacts")


def failures(rows: Sequence[FailureRow]) -> Html:
    """Return what went wrong how often."""
    cells = (Row((row.reason, f"{row.count:,}")) for row in rows)
    return table(("reason", "candidates"), cells, caption="Failures by reason")


def _mark(passed: bool | None) -> Html:
    kind = "" if passed is None else "good" if passed else "bad"
    return tag("span", outcome(passed), class_=kind)
