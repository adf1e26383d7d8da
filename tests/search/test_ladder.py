"""Who climbs, and what the score of a rung says of the top."""

import numpy as np
import optuna
import pytest

from autocompress.search.ladder import REDUCTION, Lines, Rung, climbs
from autocompress.search.objective import Scored
from autocompress.search.proposing import Result
from autocompress.search.records import finalists, front
from autocompress.search.study import search
from tests.search.synthetic import ANCHORS, glance, objective, score

optuna.logging.set_verbosity(optuna.logging.WARNING)


def rung(score: float, latency: float, error: float = 0.0) -> Rung:
    return Rung(Scored(score, error), latency)


def test_the_first_ones_climb_whatever_their_score():
    assert climbs(rung(0.1, 5.0), [])
    assert climbs(rung(0.1, 5.0), [rung(0.9, 1.0)] * (REDUCTION - 1))
    assert not climbs(rung(0.1, 5.0), [rung(0.9, 1.0)] * REDUCTION)


def test_of_nine_at_one_latency_the_best_three_climb():
    known = [rung(value, 1.0) for value in np.linspace(0.1, 0.9, 9)]
    found = [climbs(one, [other for other in known if other is not one]) for one in known]
    assert found == [False] * 6 + [True] * 3


def test_the_front_climbs_at_every_latency():
    known = [rung(0.1 * latency, latency) for latency in range(1, 10)]
    assert all(climbs(one, [other for other in known if other is not one]) for one in known)
    assert not climbs(rung(0.35, 5.0), known)


def test_what_noise_alone_puts_behind_climbs():
    known = [rung(0.80, 1.0, 0.02)] * 5 + [rung(0.2, 1.0, 0.02)] * 5
    assert climbs(rung(0.78, 1.0, 0.02), known)  # 0.02 apart, and the difference is known to 0.028.
    assert not climbs(rung(0.75, 1.0, 0.02), known)


def lines_of(low: np.ndarray, top: np.ndarray) -> Lines:
    lines = Lines()
    for each in zip(low, top, strict=True):
        lines.add([each[0]], each[1])
    return lines


def test_a_lower_score_counts_as_what_a_line_through_those_with_both_says():
    rng = np.random.default_rng(0)
    low = rng.uniform(0.2, 0.8, 50)
    top = 0.5 + 0.4 * low + 0.01 * rng.standard_normal(50)
    (found,) = lines_of(low, top).lifted([Result({"a": 1}, 0.3, 2.0, 0.02, rung=0)])
    slope, level = np.polyfit(low, top, 1)
    assert found.score == pytest.approx(level + slope * 0.3)
    away = np.sqrt(((top - level - slope * low) ** 2).sum() / 48)
    assert found.standard_error == pytest.approx(np.hypot(slope * 0.02, away))
    assert found.rung is None and found.latency_ms == 2.0


def test_a_rung_that_says_nothing_or_the_contrary_counts_as_the_mean():
    falling = lines_of(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.8, 0.7, 0.6]))
    (found,) = falling.lifted([Result({}, 0.1, 1.0, rung=0)])
    assert found.score == pytest.approx(0.75)
    (found,) = lines_of(np.full(3, 0.5), np.array([0.6, 0.7, 0.8])).lifted([Result({}, 0.1, 1.0, rung=0)])
    assert found.score == pytest.approx(0.7)


def test_nothing_is_said_of_lower_scores_before_enough_reached_the_top():
    results = [Result({}, 0.9, 1.0), Result({}, 0.1, 1.0, rung=0)]
    assert lines_of(np.full(2, 0.5), np.full(2, 0.9)).lifted(results) == results[:1]
    assert Lines().lifted(results[:1]) == results[:1]


def searched(**options):
    study = optuna.create_study(directions=["maximize", "minimize"])
    return search(study, objective(**options), trials=24, seed=3, anchors=ANCHORS)


def test_a_search_scores_in_full_only_what_climbs_and_chooses_among_these():
    glanced, scored = [], []

    def look(plan):
        glanced.append(plan)
        return glance(plan)

    def watch(plan):
        scored.append(plan)
        return score(plan)

    found = searched(score=watch, rungs=(look, look))
    states = [record.state for record in found]
    assert len(scored) == states.count("scored") < 24 == states.count("scored") + states.count("stopped")
    assert len(set(glanced)) == 24 and len(glanced) <= 48
    for record in found:
        if record.state == "stopped":
            assert record.score is None and record.highest == record.rungs[-1]
        if record.state == "scored":
            assert len(record.rungs) == 2 and record.highest == record.scored
    assert {record.state for record in [*finalists(found, 24), *front(found)]} == {"scored"}


def test_a_candidate_that_fails_on_a_rung_keeps_the_scores_below():
    def breaks(plan):
        if plan.steps[0].layers == 6:
            raise RuntimeError("the loss is not finite")
        return score(plan)

    failed = [record for record in searched(rungs=(glance, breaks)) if record.state == "failed"]
    assert failed and all(len(record.rungs) == 1 and "not finite" in record.reason for record in failed)
