"""One self-contained HTML page: it loads nothing, so it opens offline and can be mailed."""

from __future__ import annotations

from pathlib import Path

from plotly.offline import get_plotlyjs

from autocompress.report.markup import Html, Row, join, table, tag
from autocompress.report.plots import Figure, pareto, reliability
from autocompress.report.units import ABSENT, TITLES, figure, interval, percent, points, ratio
from autocompress.report.values import BaselineRow, CandidateRow, LimitRow, PredictorHealth, RunReport
from autocompress.report.verdict import SENTENCES, UNCALIBRATED, WORDS, goal_line, limit_cells, outcome, where

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses to load anything from elsewhere."""
_SHOWN = 12
"""Candidates that are listed without being asked for."""


def render(report: RunReport) -> str:
    """Return the page as HTML text."""
    body = tag("main", _header(report), *(section for section in _sections(report) if section))
    scripts = (tag("script", Html(get_plotlyjs())), tag("script", Html((_HERE / "page.js").read_text("utf-8"))))
    head = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            tag("title", report.title),
            tag("style", Html((_HERE / "page.css").read_text("utf-8"))),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}{join(scripts)}</body></html>\n'


def _header(report: RunReport) -> Html:
    return tag("header", tag("h1", report.title), tag("p", f"{where(report)}, {report.created}"))


def _sections(report: RunReport) -> list[Html]:
    return [
        _verdict(report),
        _goal(report),
        _baselines(report),
        _pareto(report),
        _reliability(report.predictor),
        _candidates(report),
        _predictor(report.predictor),
        _parity(report),
        _failures(report),
        _reproduction(report),
    ]


def _section(title: str, *parts: str) -> Html:
    return tag("section", tag("h2", title), *parts)


def _note(text: str) -> Html:
    return tag("p", text, class_="note")


def _mark(passed: bool | None) -> Html:
    kind = "" if passed is None else "good" if passed else "bad"
    return tag("span", outcome(passed), class_=kind)


def _verdict(report: RunReport) -> Html:
    def row(limit: LimitRow) -> Row:
        name, _, *figures = limit_cells(limit)
        return Row((name, _mark(limit.passed), *figures))

    kind = "good" if report.verdict == "pass" else "bad"
    badge = tag("span", WORDS[report.verdict], class_="badge")
    return _section(
        "Verdict",
        tag("p", badge, tag("span", SENTENCES[report.verdict]), class_=f"verdict {kind}"),
        *(tag("p", tag("b", text)) for text in (report.blocked, report.reachable) if text),
        _tiles(report),
        table(
            ("limit", "outcome", "measured", "budget", "predicted"),
            map(row, report.limits),
            words=2,
            caption="Every limit",
        ),
        _uncalibrated(report.predictor),
    )


def _tiles(report: RunReport) -> Html:
    teacher, student, goal = report.only("teacher"), report.only("student"), report.goal
    tiles: list[tuple[str, str]] = []
    if teacher and student:
        tiles = [
            (ratio(teacher.latency_p50_ms, student.latency_p50_ms), "faster than the teacher"),
            (ratio(teacher.size_bytes, student.size_bytes), "smaller on disk"),
            (ratio(teacher.peak_memory_bytes, student.peak_memory_bytes), "less peak memory"),
        ]
    if goal:
        tiles.append((f"{-goal.drop_points:+.2f}", f"points of {goal.metric}"))
    return tag(
        "div", *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles), class_="tiles"
    )


def _uncalibrated(health: PredictorHealth) -> Html:
    if health.calibrated:
        return Html()
    text = (
        "Latency and memory are worked out from the device's data sheet. Measure on the device before relying on them."
    )
    return tag("p", tag("b", UNCALIBRATED.capitalize()), text, class_="warning")


def _goal(report: RunReport) -> Html:
    goal = report.goal
    if goal is None:
        return _section("Goal", tag("p", "Nothing was scored."))
    row = Row(
        (
            goal.metric,
            _mark(goal.passed),
            points(goal.drop_points),
            f"≤ {points(goal.max_drop_points)}",
            f"{percent(goal.student, 2)} ± {100 * goal.standard_error:.2f}",
            percent(goal.teacher, 2),
        )
    )
    header = ("metric", "outcome", "loss", "allowed", "student", "teacher")
    return _section(
        "Goal",
        table(header, [row], words=2, caption=goal_line(goal)),
        _note(f"On {goal.examples:,} examples; ± is one standard error."),
    )


def _baselines(report: RunReport) -> Html:
    teacher = report.only("teacher")

    def row(model: BaselineRow) -> Row:
        cells = (
            model.name,
            percent(model.score, 2),
            figure("latency_p50_ms", model.latency_p50_ms),
            figure("latency_p95_ms", model.latency_p95_ms),
            ratio(teacher.latency_p50_ms, model.latency_p50_ms) if teacher else ABSENT,
            figure("peak_memory_bytes", model.peak_memory_bytes),
            figure("size_bytes", model.size_bytes),
            f"{model.samples:,}",
        )
        return Row(cells, "chosen" if model.role == "student" else "")

    header = ("model", "score", "median", "p95", "speed-up", "peak memory", "size", "runs")
    return _section(
        "Baselines on the same device",
        table(header, map(row, report.baselines), caption="Measured models")
        if report.baselines
        else tag("p", "Nothing was measured."),
        _note(f"All measured on {where(report)}. Speed-up is the teacher's median latency over the model's."),
    )


def _plot(name: str, plot: Figure, described: str) -> Html:
    data = tag("script", Html(plot.to_json().replace("<", "\\u003c")), type="application/json", id=name)
    return join([tag("div", class_="plot", role="img", aria_label=described, data_figure=name), data])


def _pareto(report: RunReport) -> Html:
    if not report.candidates and not report.baselines:
        return Html()
    plot = _plot("pareto", pareto(report), "Score over median latency of every candidate and baseline")
    return _section(
        "Score over latency",
        plot,
        _note("Filled marks are measured, hollow ones predicted. Touch a mark for its plan."),
    )


def _reliability(health: PredictorHealth) -> Html:
    if not health.pairs:
        return _section("Predicted against measured", tag("p", "No prediction was checked by a measurement."))
    plot = _plot("reliability", reliability(health.pairs), "Predicted over measured latency")
    held = sum(pair.covered for pair in health.pairs)
    return _section(
        "Predicted against measured",
        plot,
        _note(f"{held} of {len(health.pairs)} measurements lie inside the predicted interval."),
    )


def _candidates(report: RunReport) -> Html:
    def row(candidate: CandidateRow) -> Row:
        cells = (
            f"#{candidate.number}",
            candidate.stage if candidate.feasible else f"over {', '.join(TITLES[name] for name in candidate.violated)}",
            join([tag("b", candidate.label), candidate.plan_summary], " ")
            if candidate.label
            else candidate.plan_summary,
            percent(candidate.score, 2),
            interval("latency_p50_ms", candidate.latency_p50_ms),
            figure("latency_p50_ms", candidate.measured_p50_ms),
            figure("peak_memory_bytes", candidate.peak_memory_bytes),
            figure("size_bytes", candidate.size_bytes),
        )
        return Row(cells, "chosen" if candidate.stage == "exported" else "" if candidate.feasible else "dim")

    if not report.candidates:
        return Html()
    header = (
        "trial",
        "stage",
        "plan",
        "score",
        "latency, predicted",
        "measured",
        "memory, predicted",
        "size, predicted",
    )
    rows = sorted(report.candidates, key=lambda one: (one.score is None, -(one.score or 0.0), one.number))
    tried, unscored = len(rows), sum(one.score is None for one in rows)
    best, rest = rows[:_SHOWN], rows[_SHOWN:]

    def listed(some: list[CandidateRow]) -> Html:
        return table(header, map(row, some), words=3, caption="Candidates, best score first")

    more = tag("details", tag("summary", f"{len(rest)} more"), listed(rest)) if rest else Html()
    note = f"{tried} tried, {unscored} of them predicted over budget and never scored. Best score first."
    return _section("Candidates", listed(best), more, _note(note))


def _predictor(health: PredictorHealth) -> Html:
    rows = [
        Row(("source", health.source)),
        Row(("fitted on", f"{health.samples:,} samples")),
        Row(("mean error on held-out samples", percent(health.held_out_mape))),
        Row(("held-out samples within 10 %", percent(health.within_10_percent))),
        Row(("held-out samples inside their interval", percent(health.coverage))),
    ]
    return _section(
        "Predictor health",
        _uncalibrated(health),
        table(("latency predictor", ""), rows, words=2, caption="The latency predictor"),
    )


def _parity(report: RunReport) -> Html:
    rows = [
        Row(
            (
                row.engine,
                _mark(row.passed),
                f"{row.max_abs_logit_diff:.2e}",
                f"{row.tolerance:.0e}",
                percent(row.argmax_agreement, 2),
                percent(row.torch_score, 2),
                percent(row.artifact_score, 2),
            )
        )
        for row in report.parity
    ]
    if not rows:
        return _section("Parity", tag("p", "Nothing was exported."))
    header = (
        "engine",
        "largest logit difference",
        "allowed",
        "same answer",
        "score in torch",
        "score exported",
        "outcome",
    )
    note = _note("Each exported artifact against the torch student, on real inputs.")
    return _section("Parity", table(header, rows, words=2, caption="Parity of the artifacts"), note)


def _failures(report: RunReport) -> Html:
    rows = [Row((row.reason, f"{row.count:,}")) for row in report.failures]
    listed = (
        table(("reason", "candidates"), rows, caption="Failures by reason") if rows else tag("p", "Nothing failed.")
    )
    return _section("Failures", listed)


def _reproduction(report: RunReport) -> Html:
    rows = [Row((name, version)) for name, version in sorted(report.versions.items())]
    versions = tag("details", tag("summary", "Versions"), table(("part", "version"), rows, words=2, caption="Versions"))
    return _section("How to reproduce", tag("pre", "\n".join(report.reproduction)), versions if rows else Html())
