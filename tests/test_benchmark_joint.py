"""What is read from the models that each way ends with."""

import json

import pytest

from benchmarks.joint import best, report, speedups
from benchmarks.joint_rows import Outcome, Point
from benchmarks.record import kept


def point(accuracy: float, latency: float) -> Point:
    return Point("", accuracy, 0.01, latency, 10 * latency, 1000, 1)


def outcome(way: str, seed: int, *points: Point) -> Outcome:
    return Outcome(way, seed, 20.0, [point(0.97, 1.0), *points], 5, 1.0)


def test_the_best_inside_a_budget_is_the_most_accurate_that_is_fast_enough():
    points = [point(0.9, 0.1), point(0.95, 0.3), point(0.8, 0.05)]
    assert best(points, 0.1) == 0.9
    assert best(points, 0.5) == 0.95
    assert best(points, 0.04) is None


def test_a_speedup_is_over_what_none_of_the_others_beats_and_none_where_ours_is_never_as_good():
    others = [point(0.90, 0.2), point(0.89, 0.3), point(0.99, 0.6)]
    assert speedups([point(0.91, 0.1), point(0.95, 0.15)], others) == [pytest.approx(2.0), None]


def test_joint_wins_a_budget_by_its_mean_over_seeds_and_counts_its_speedups(capsys):
    found = [
        *(outcome("joint", seed, point(0.95, 0.1), point(0.93 + 0.02 * seed, 0.04)) for seed in (0, 1)),
        *(outcome("int8", seed, point(0.95, 0.2)) for seed in (0, 1)),
    ]
    figures = report(found, (0.2, 0.05))
    assert figures["latency_vs_best_sequential"] == pytest.approx(3.5)  # 0.2 / 0.1, and 0.2 / 0.04 with seed 1.
    assert figures["joint_is_best_inside"] == [0.05]
    assert figures["accuracy"]["int8"]["0.05"] is None
    assert "nothing" in capsys.readouterr().out


def test_the_newest_full_run_tells_a_figure(tmp_path):
    assert kept("joint", "ratio", folder=tmp_path) is None
    for day, ratio in (("2026-01-02", 2.0), ("2026-01-10", 3.0)):
        (tmp_path / f"joint-{day}.json").write_text(json.dumps({"figures": {"ratio": ratio}}))
    (tmp_path / "other-2026-02-01.json").write_text("{}")
    assert kept("joint", "ratio", folder=tmp_path) == 3.0
