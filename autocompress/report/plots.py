"""The plots of the page, as figures. Hollow marks are predicted, filled ones are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import Any, TypeAlias

import plotly.graph_objects as go

from autocompress.report.units import figure, interval, percent
from autocompress.report.values import BaselineRow, CandidateRow, Moment, Pair, RunReport

Figure: TypeAlias = Any
"""``plotly.graph_objects.Figure``; plotly carries no types."""

LATENCY = "latency_p50_ms"
WAITED = 0.05
"""Share of its time from which a sample is marked as one that waited for a processor."""
GREEN, GREY, RED, BLUE, ORANGE = "#1a9b6c", "#8a8f98", "#d4493f", "#3b82d6", "#d98a1c"
PALE = "#b9c9de"


def pareto(report: RunReport) -> Figure:
    """Plot score over median latency: every candidate, what was measured, and the region that budget and goal leave.

    Obvious candidates that were predicted over budget and so never scored have no score; they are ticks on the axis.
    """
    plot = _figure("median latency (ms)", "score (%)", height=460)
    unscored = [row for row in report.candidates if row.score is None]
    some = [row for row in report.candidates if row.score is not None]
    scored, stopped = ([row for row in some if (row.stage == "stopped") is early] for early in (False, True))
    for name, rows, colour in (
        ("candidate within budget", [row for row in scored if row.feasible], BLUE),
        ("candidate over budget", [row for row in scored if not row.feasible], GREY),
        ("stopped early, after less training", stopped, PALE),
    ):
        if rows:
            plot.add_trace(_candidates(name, rows, colour))
    for name, role, symbol, size, colour in (
        ("baseline", "baseline", "diamond", 11, ORANGE),
        ("teacher", "teacher", "square", 12, RED),
        ("chosen student", "student", "star", 18, GREEN),
    ):
        models = ((model, report.judged(model)) for model in report.baselines if model.role == role)
        measured = [(model, 100 * score) for model, score in models if score is not None]
        if measured:
            plot.add_trace(_measured(name, measured, {"symbol": symbol, "size": size, "color": colour}))
    if unscored:
        plot.add_trace(_rug(unscored))
        plot.update_layout(yaxis2={"overlaying": "y", "range": [-0.03, 1], "visible": False, "fixedrange": True})
    _bounds(plot, report)
    return plot


def reliability(pairs: Sequence[Pair], held_out: Sequence[Pair] = ()) -> Figure:
    """Plot predicted over measured latency, with the interval of each prediction and the line where both agree.

    Args:
        pairs: Drawn with their intervals.
        held_out: Calibration samples that were left out of the fit; their intervals are alike, and drawn as a band.
    """
    plot = _figure("measured (ms)", "predicted (ms)", height=420)
    ends = [value for pair in pairs for value in (pair.measured, pair.predicted.low, pair.predicted.high)]
    ends += [value for pair in held_out for value in (pair.measured, pair.predicted.value)]
    span = [0.9 * min(ends), 1.06 * max(ends)] if ends else [0, 1]
    if held_out:
        factor = median(pair.predicted.high / pair.predicted.value for pair in held_out)
        if isfinite(factor):
            plot.add_trace(_band("90 % interval", span, factor))
        plot.add_trace(_points("calibration sample, left out of the fit", held_out))
    plot.add_trace(_line("exact", span, span, GREY, "solid"))
    for name, covered, colour in (("interval holds the measurement", True, BLUE), ("interval misses it", False, RED)):
        rows = [pair for pair in pairs if pair.covered is covered]
        if rows:
            plot.add_trace(_intervals(name, rows, colour))
    return plot


def timeline(moments: Sequence[Moment]) -> Figure:
    """Plot the reference kernel over the minutes since the first moment, with the slow stretches shaded."""
    plot = _figure("minutes since the start", "reference kernel (ms)", height=320)
    begun_s = min((moment.start_s for moment in moments), default=0.0)
    minutes = [(moment.start_s - begun_s) / 60 for moment in moments]
    timed = [(at, moment) for at, moment in zip(minutes, moments, strict=True) if moment.reference_ms is not None]
    for name, waited, symbol, colour in (
        ("sample", False, "circle", BLUE),
        (f"waited {percent(WAITED, 0)} or more for a processor", True, "diamond", ORANGE),
    ):
        rows = [(at, moment) for at, moment in timed if (moment.waited_share >= WAITED) is waited]
        if rows:
            plot.add_trace(_moments(name, rows, {"symbol": symbol, "size": 8, "color": colour}))
    for start, end in _slow(minutes, moments):
        plot.add_vrect(x0=start, x1=end, fillcolor=RED, opacity=0.14, line={"width": 0}, layer="below")
    left, right = _span(minutes)
    plot.update_layout(xaxis_range=[left, right], yaxis_rangemode="tozero", showlegend=True)
    return plot


def _slow(minutes: Sequence[float], moments: Sequence[Moment]) -> list[tuple[float, float]]:
    """Return where each slow stretch begins and ends: halfway to the steady moment before and after it."""
    edges = [(before + after) / 2 for before, after in pairwise(minutes)]
    starts, ends = [*minutes[:1], *edges], [*edges, *minutes[-1:]]
    stretches: list[tuple[float, float]] = []
    for place, moment in enumerate(moments):
        if moment.slow:
            goes_on = place > 0 and moments[place - 1].slow
            start = stretches.pop()[0] if goes_on else starts[place]
            stretches.append((start, ends[place]))
    return stretches


def _moments(name: str, rows: Sequence[tuple[float, Moment]], marker: dict[str, object]) -> Figure:
    def hover(at: float, moment: Moment) -> str:
        waited = f"waited {percent(moment.waited_share)} of its time" if moment.waited_share else ""
        return _lines(f"minute {at:.1f}", figure(LATENCY, moment.reference_ms), waited, "slow" if moment.slow else "")

    return go.Scatter(
        name=name,
        mode="markers",
        x=[at for at, _ in rows],
        y=[moment.reference_ms for _, moment in rows],
        marker=marker,
        hoverinfo="text",
        hovertext=[hover(at, moment) for at, moment in rows],
    )


def _figure(x: str, y: str, *, height: int) -> Figure:
    axis = {"zeroline": False, "automargin": True, "ticks": "outside"}
    layout = {
        "template": "none",
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "hoverlabel": {"align": "left"},
        "hovermode": "closest",
    }
    return go.Figure(layout=layout)


def _candidates(name: str, rows: Sequence[CandidateRow], colour: str) -> Figure:
    """Measured latency where there is one, else predicted."""
    return go.Scatter(
        name=name,
        mode="markers",
        x=[row.measured_p50_ms or row.latency_p50_ms.value for row in rows],
        y=[100 * (row.score or 0.0) for row in rows],
        marker={
            "size": 9,
            "color": colour,
            "symbol": ["circle-open" if row.measured_p50_ms is None else "circle" for row in rows],
            "line": {"width": 1.6, "color": colour},
        },
        hoverinfo="text",
        hovertext=[_hover_candidate(row) for row in rows],
    )


def _measured(name: str, rows: Sequence[tuple[BaselineRow, float]], marker: dict[str, object]) -> Figure:
    """Draw measured models, each with its score in percent."""

    def hover(row: BaselineRow, score: float) -> str:
        memory, size = figure("peak_memory_bytes", row.peak_memory_bytes), figure("size_bytes", row.size_bytes)
        return _lines(
            f"<b>{escape(row.name)}</b>",
            f"{percent(score / 100, 2)}, {figure(LATENCY, row.latency_p50_ms)} measured",
            f"peak memory {memory}, size {size}",
        )

    return go.Scatter(
        name=name,
        mode="markers",
        x=[row.latency_p50_ms for row, _ in rows],
        y=[score for _, score in rows],
        marker=marker,
        hoverinfo="text",
        hovertext=[hover(row, score) for row, score in rows],
    )


def _rug(rows: Sequence[CandidateRow]) -> Figure:
    return go.Scatter(
        name="predicted over budget, never scored",
        mode="markers",
        x=[row.latency_p50_ms.value for row in rows],
        y=[0.0] * len(rows),
        yaxis="y2",
        marker={"symbol": "line-ns-open", "size": 12, "color": GREY},
        hoverinfo="text",
        hovertext=[_hover_candidate(row) for row in rows],
    )


def _hover_candidate(row: CandidateRow) -> str:
    title = f"<b>#{row.number}</b> {escape(row.label)}".rstrip()
    measured = "" if row.measured_p50_ms is None else f", {figure(LATENCY, row.measured_p50_ms)} measured"
    violated = "over " + ", ".join(escape(name) for name in row.violated) if row.violated else ""
    score = "never scored" if row.score is None else percent(row.score, 2)
    return _lines(
        title,
        escape(row.plan_summary),
        f"{score}; {interval(LATENCY, row.latency_p50_ms)} predicted{measured}",
        violated,
    )


def _lines(*lines: str) -> str:
    return "<br>".join(line for line in lines if line)


def _bounds(plot: Figure, report: RunReport) -> None:
    """Draw the latency limit, the lowest score that the goal allows and the corner that both leave."""
    budget, goal = report.limit(LATENCY), report.goal
    lowest = None if goal is None else 100 * goal.teacher - goal.max_drop_points
    left, right = _span([x for trace in plot.data for x in trace.x] + ([] if budget is None else [budget]))
    scores = [y for trace in plot.data if trace.yaxis is None for y in trace.y]
    bottom, top = _span(scores + ([] if lowest is None else [lowest]))
    plot.update_layout(xaxis_range=[max(0.0, left), right], yaxis_range=[bottom, top])
    note = {"font": {"size": 12}, "showarrow": False}
    if budget is not None:
        plot.add_vline(x=budget, line={"dash": "dash", "width": 1.5, "color": GREEN})
        text = f"budget {figure(LATENCY, budget)}"
        plot.add_annotation(x=budget, y=1, yref="paper", yanchor="top", xanchor="left", xshift=4, text=text, **note)
    if lowest is not None:
        plot.add_hline(y=lowest, line={"dash": "dot", "width": 1.5, "color": GREEN})
        text = f"lowest allowed {lowest:.1f} %"
        plot.add_annotation(x=1, xref="paper", xanchor="right", y=lowest, yanchor="top", text=text, **note)
    if budget is not None and lowest is not None:
        corner = {"x0": 0, "x1": budget, "y0": lowest, "y1": top, "line": {"width": 0}, "layer": "below"}
        plot.add_shape(type="rect", fillcolor=GREEN, opacity=0.09, **corner)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return a range that leaves a little room on both sides of ``values``."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - room, high + room


def _line(name: str, x: Sequence[float], y: Sequence[float], colour: str, dash: str) -> Figure:
    return go.Scatter(
        name=name,
        mode="lines",
        x=list(x),
        y=list(y),
        hoverinfo="skip",
        line={"color": colour, "width": 1.5, "dash": dash},
    )


def _band(name: str, span: Sequence[float], factor: float) -> Figure:
    """Return the region in which prediction and measurement differ by at most ``factor``."""
    low, high = span
    return go.Scatter(
        name=name,
        mode="lines",
        x=[low, high, high, low],
        y=[low / factor, high / factor, high * factor, low * factor],
        fill="toself",
        fillcolor=GREY,
        opacity=0.18,
        line={"width": 0},
        hoverinfo="skip",
    )


def _points(name: str, rows: Sequence[Pair]) -> Figure:
    return go.Scatter(
        name=name,
        mode="markers",
        x=[pair.measured for pair in rows],
        y=[pair.predicted.value for pair in rows],
        marker={"size": 5, "color": GREY},
        hoverinfo="text",
        hovertext=[_told(pair) for pair in rows],
    )


def _told(pair: Pair) -> str:
    told = f"{interval(LATENCY, pair.predicted)} predicted, {figure(LATENCY, pair.measured)} measured"
    return _lines(f"<b>{escape(pair.label)}</b>", told)


def _intervals(name: str, rows: Sequence[Pair], colour: str) -> Figure:
    def reach(end: Callable[[Pair], float]) -> list[float]:
        return [abs(end(pair) - pair.predicted.value) for pair in rows]

    bars = {
        "type": "data",
        "symmetric": False,
        "array": reach(lambda pair: pair.predicted.high),
        "arrayminus": reach(lambda pair: pair.predicted.low),
        "thickness": 1.4,
        "width": 4,
    }
    return go.Scatter(
        name=name,
        mode="markers",
        x=[pair.measured for pair in rows],
        y=[pair.predicted.value for pair in rows],
        error_y=bars,
        marker={"size": 8, "color": colour},
        hoverinfo="text",
        hovertext=[_told(pair) for pair in rows],
    )
