from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.cost import Estimate
from autocompress.report.plots import pareto, reliability, timeline
from autocompress.report.values import AGREEMENT, Moment, Pair, RunReport
from tests.report.conftest import SLOW, WAITING


def traces(plot: object) -> dict[str, object]:
    return {trace.name: trace for trace in plot.data}  # type: ignore[attr-defined]


def test_every_candidate_and_every_scored_baseline_is_drawn_once(report: RunReport) -> None:
    drawn = sum(len(trace.x) for trace in pareto(report).data)
    assert drawn == len(report.candidates) + len(report.baselines)


def test_candidates_over_budget_stand_apart_and_the_unscored_have_no_score(report: RunReport) -> None:
    drawn = traces(pareto(report))
    unscored = [row.latency_p50_ms.value for row in report.candidates if row.score is None]
    assert list(drawn["predicted over budget, never scored"].x) == unscored
    assert drawn["predicted over budget, never scored"].yaxis == "y2"
    assert len(drawn["candidate over budget"].x) == sum(
        row.score is not None and not row.feasible for row in report.candidates
    )


def test_candidates_that_were_stopped_early_stand_apart(report: RunReport) -> None:
    stopped = [row.latency_p50_ms.value for row in report.candidates if row.stage == "stopped"]
    assert stopped and list(traces(pareto(report))["stopped early, after less training"].x) == stopped


def test_only_measured_candidates_are_filled(report: RunReport) -> None:
    rows = [row for row in report.candidates if row.score is not None and row.feasible and row.stage != "stopped"]
    symbols = traces(pareto(report))["candidate within budget"].marker.symbol
    assert list(symbols) == ["circle-open" if row.measured_p50_ms is None else "circle" for row in rows]


def test_the_budget_and_the_lowest_allowed_score_are_lines_inside_the_view(report: RunReport) -> None:
    plot = pareto(report)
    assert report.goal is not None
    budget, lowest = 18.0, 100 * report.goal.teacher - report.goal.max_drop_points
    lines = [shape for shape in plot.layout.shapes if shape.type == "line"]
    assert (lines[0].x0, lines[0].x1) == (budget, budget)
    assert (lines[1].y0, lines[1].y1) == (lowest, lowest)
    assert plot.layout.xaxis.range[0] < budget < plot.layout.xaxis.range[1]
    assert plot.layout.yaxis.range[0] < lowest < plot.layout.yaxis.range[1]


def test_a_run_without_limits_scores_or_baselines_can_be_drawn(report: RunReport) -> None:
    free = tuple(replace(row, budget=None) for row in report.limits)
    unscored = tuple(replace(row, score=None) for row in report.candidates)
    plot = pareto(replace(report, limits=free, goal=None, candidates=unscored, baselines=()))
    assert len(plot.layout.shapes) == 0
    assert len(plot.data) == 1


def test_intervals_reach_from_low_to_high_and_misses_stand_apart() -> None:
    held, missed = Pair("held", Estimate(10, 9, 12), 11), Pair("missed", Estimate(20, 19, 21), 25)
    drawn = traces(reliability([held, missed]))
    for name, pair in (("interval holds the measurement", held), ("interval misses it", missed)):
        (middle,), (up,), (down,) = drawn[name].y, drawn[name].error_y.array, drawn[name].error_y.arrayminus
        assert (middle + up, middle - down) == pytest.approx((pair.predicted.high, pair.predicted.low))
        assert tuple(drawn[name].x) == (pair.measured,)


def test_held_out_samples_lie_in_the_band_if_and_only_if_their_interval_holds_the_measurement() -> None:
    predictions, factor = (10.0, 20.0, 40.0), 1.1
    held_out = [
        Pair(f"{index}", Estimate(value, value / factor, value * factor), value * off)
        for index, (value, off) in enumerate(zip(predictions, (1.05, 0.8, 1.3), strict=True))
    ]
    drawn = traces(reliability([], held_out))
    band, points = drawn["90 % interval"], drawn["calibration sample, left out of the fit"]
    low, high = band.y[0] / band.x[0], band.y[3] / band.x[3]
    inside = [low <= y / x <= high for x, y in zip(points.x, points.y, strict=True)]
    assert inside == [pair.covered for pair in held_out] == [True, False, False]


def test_an_interval_without_end_has_no_band() -> None:
    drawn = traces(reliability([], [Pair("0", Estimate(10.0, 0.0, float("inf")), 9.0)]))
    assert "90 % interval" not in drawn and len(drawn["calibration sample, left out of the fit"].x) == 1


def moments(slow: str, step_s: float = 60.0) -> list[Moment]:
    """Return a moment a minute; ``x`` stands for a slow one."""
    return [Moment(1000 + step_s * place, 2.0, 0.0, mark == "x") for place, mark in enumerate(slow)]


@pytest.mark.parametrize(
    ("slow", "shaded"),
    [
        ("....", []),
        (".xx.", [(0.5, 2.5)]),
        ("x..x", [(0.0, 0.5), (2.5, 3.0)]),
        (".x.x.", [(0.5, 1.5), (2.5, 3.5)]),
        ("xxx", [(0.0, 2.0)]),
        ("", []),
    ],
)
def test_slow_stretches_are_shaded_halfway_to_their_steady_neighbours(
    slow: str, shaded: list[tuple[float, float]]
) -> None:
    assert [(shape.x0, shape.x1) for shape in timeline(moments(slow)).layout.shapes] == shaded


def test_every_timed_moment_is_drawn_in_minutes_since_the_first_and_those_that_waited_apart(
    disturbed_report: RunReport,
) -> None:
    told = disturbed_report.predictor.timeline
    samples, waited = timeline(told).data
    assert list(waited.x) == pytest.approx([place / 2 for place in WAITING])
    assert [(y, "slow" in text) for y, text in zip(waited.y, waited.hovertext, strict=True)] == [
        (told[place].reference_ms, place in SLOW) for place in WAITING
    ]
    assert len(samples.x) + len(waited.x) == len(told)


def test_moments_without_a_reference_are_not_drawn_but_count_in_the_shading() -> None:
    first, *others = moments(".x.")
    plot = timeline([replace(first, reference_ms=None), *others])
    assert list(plot.data[0].x) == [1.0, 2.0]
    assert [(shape.x0, shape.x1) for shape in plot.layout.shapes] == [(0.5, 1.5)]


def test_for_fidelity_measured_models_stand_where_they_answer_as_the_teacher(report):
    goal = replace(report.goal, metric=AGREEMENT, teacher=1.0, student=0.9653)
    faithful, plain = (traces(pareto(shown))["chosen student"] for shown in (replace(report, goal=goal), report))
    assert faithful.y == (pytest.approx(96.53),)
    assert plain.y == (pytest.approx(94.06),)
