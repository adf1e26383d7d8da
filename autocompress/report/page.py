"""One self-contained HTML page: it loads nothing, so it opens offline and can be mailed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from autocompress.report import tables
from autocompress.report.markup import Html, Row, join, table, tag
from autocompress.report.plots import Figure, pareto, reliability, timeline
from autocompress.report.units import ratio
from autocompress.report.values import Pair, PredictorHealth, RunReport
from autocompress.report.verdict import UNCALIBRATED, WORDS, how, sentence, where

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses to load anything from elsewhere."""
_SHOWN = 12
"""Candidates that are listed without being asked for."""


def render(report: RunReport) -> str:
    """Return the page as HTML text."""
    header = tag("header", tag("h1", report.title), tag("p", f"{where(report)}, {report.created}"))
    body = tag("main", header, *_sections(report))
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


def _sections(report: RunReport) -> list[Html]:
    return [
        _section("Verdict", *_verdict(report)),
        _section("Goal", *_goal(report)),
        _section("Baselines on the same device", *_baselines(report)),
        _section("Score over latency", *_pareto(report)),
        _section("Predicted against measured", *_reliability(report.predictor)),
        _section("Candidates", *_candidates(report)),
        _section("Predictor health", *_health(report.predictor)),
        _section("Parity", *_parity(report)),
        _section("Failures", tables.failures(report.failures) if report.failures else _plain("Nothing failed.")),
        _section("How to reproduce", *_reproduction(report)),
    ]


def _section(title: str, *parts: str) -> Html:
    return tag("section", tag("h2", title), *parts)


def _plain(text: str) -> Html:
    return tag("p", text)


def _note(text: str) -> Html:
    return tag("p", text, class_="note")


def _verdict(report: RunReport) -> list[Html]:
    kind = "good" if report.verdict == "pass" else "bad"
    badge = tag("span", WORDS[report.verdict], class_="badge")
    return [
        tag("p", badge, tag("span", sentence(report)), class_=f"verdict {kind}"),
        *(tag("p", tag("b", text)) for text in (report.blocked, report.reachable) if text),
        _tiles(report),
        tables.limits(report.limits, how(report)),
        _warning(report.predictor),
    ]


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
        tiles.append((f"{-goal.drop_points:+.2f}".replace("-", "−"), f"points of {goal.metric}"))
    return tag(
        "div", *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles), class_="tiles"
    )


def _warning(health: PredictorHealth) -> Html:
    if health.calibrated:
        return Html()
    known = "worked out from the device's data sheet"
    if health.emulator:
        known = f"fitted on samples that {health.emulator} emulated"
    text = f"Latency and memory are {known}. Measure on the device before relying on them."
    return tag("p", tag("b", UNCALIBRATED.capitalize()), text, class_="warning")


def _goal(report: RunReport) -> list[Html]:
    if report.goal is None:
        return [_plain("Nothing was scored.")]
    return [tables.goal(report.goal), _note(f"On {report.goal.examples:,} examples; ± is one standard error.")]


def _baselines(report: RunReport) -> list[Html]:
    if not report.baselines:
        return [_plain("Nothing was measured.")]
    note = f"All measured on {where(report)}. Speed-up is the teacher's median latency over the model's."
    return [tables.baselines(report.baselines, report.only("teacher")), _note(note)]


def _plot(name: str, plot: Figure, described: str) -> Html:
    data = tag("script", Html(plot.to_json().replace("<", "\\u003c")), type="application/json", id=name)
    return join([tag("div", class_="plot", role="img", aria_label=described, data_figure=name), data])


def _pareto(report: RunReport) -> list[Html]:
    if not report.candidates and not report.baselines:
        return [_plain("Nothing was tried.")]
    plot = _plot("pareto", pareto(report), "Score over median latency of every candidate and baseline")
    hollow = "predicted" if report.predictor.calibrated else f"predicted ({UNCALIBRATED})"
    return [plot, _note(f"Filled marks are {how(report)}, hollow ones {hollow}. Point at a mark for its plan.")]


def _reliability(health: PredictorHealth) -> list[Html]:
    if not health.pairs and not health.held_out:
        return [_plain("No prediction was checked by a measurement.")]

    def held(pairs: Sequence[Pair]) -> str:
        return f"{sum(pair.covered for pair in pairs)} of {len(pairs)}"

    notes = (
        [f"{held(health.pairs)} measurements of this run lie inside the predicted interval."] if health.pairs else []
    )
    if health.held_out:
        notes.append(f"Of the calibration's random samples, each left out of the fit, {held(health.held_out)} do.")
    plot = reliability(health.pairs, health.held_out)
    return [_plot("reliability", plot, "Predicted over measured latency"), _note(" ".join(notes))]


def _health(health: PredictorHealth) -> list[Html]:
    told = [_warning(health), tables.predictor(health)]
    slow = "The device was slow, and what it then ran was measured again as far as the time allowed: "
    said = [_note(slow + "; ".join(health.episodes) + ".")] if health.episodes else []
    if not any(moment.reference_ms for moment in health.timeline):
        return [*told, *said]
    plot = _plot("timeline", timeline(health.timeline), "Reference kernel over the minutes of the profile")
    shaded = "slow stretches are shaded" if any(moment.slow for moment in health.timeline) else "it was never slow"
    note = f"One kernel, timed beside every sample, shows how fast the device was; {shaded}."
    return [*told, plot, *said, _note(note)]


def _candidates(report: RunReport) -> list[Html]:
    if not report.candidates:
        return [_plain("Nothing was tried.")]
    rows = sorted(
        report.candidates,
        key=lambda one: (one.score is None, one.stage == "stopped", -(one.score or 0.0), one.number),
    )
    best, rest = rows[:_SHOWN], rows[_SHOWN:]
    more = tag("details", tag("summary", f"{len(rest)} more"), tables.candidates(rest)) if rest else Html()
    unscored = sum(one.score is None for one in rows)
    obvious = f", {unscored} obvious ones of them predicted over budget and never scored" if unscored else ""
    stopped = sum(one.stage == "stopped" for one in rows)
    early = f", {stopped} stopped early and scored after less training" if stopped else ""
    note = f"{len(rows)} tried{obvious}{early}. Memory and size: predicted."
    return [tables.candidates(best), more, _note(note)]


def _parity(report: RunReport) -> list[Html]:
    if not report.parity:
        return [_plain("Nothing was exported.")]
    return [tables.parity(report.parity), _note("Each exported artifact against the torch student, on real inputs.")]


def _reproduction(report: RunReport) -> list[Html]:
    commands = tag("pre", "\n".join(report.reproduction))
    if not report.versions:
        return [commands]
    rows = (Row(pair) for pair in sorted(report.versions.items()))
    versions = table(("part", "version"), rows, words=2, caption="Versions")
    return [commands, tag("details", tag("summary", "Versions"), versions)]
