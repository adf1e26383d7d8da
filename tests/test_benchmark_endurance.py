import numpy as np
import pytest

from autocompress.search.objective import foresee
from benchmarks.endurance import TENTHS, kill, outside, wear
from benchmarks.scale import Load, bear
from benchmarks.synthetic import DRAWN, FORMULA_LIMIT_MS, formula, minilm
from tests.search.postgresql import server

__all__ = ["server"]


def test_of_the_formulas_candidates_some_are_over_budget_and_those_inside_differ():
    asked, rng = formula().objective, np.random.default_rng(0)
    drawn = [{name: values[int(rng.integers(len(values)))] for name, values in DRAWN.items()} for _ in range(300)]
    found = [foresee(asked.draw(params), asked) for params in drawn]
    inside = [each for each in found if each.inside]
    assert all(1.1 * each.cost.latency_p50_ms.value <= FORMULA_LIMIT_MS for each in inside)
    assert 100 < len(inside) < 250
    assert len({asked.score(each.plan).value for each in inside}) > 0.9 * len(inside)


@pytest.mark.parametrize("made", [formula, lambda: minilm(per_layer=False)], ids=["formula", "minilm"])
def test_what_informs_a_synthetic_search_knows_each_choice_and_foresees_what_the_search_does(made):
    synthetic = made()
    informed, asked = synthetic.samplers["informed"], synthetic.objective
    assert {name: set(costs) for name, costs in informed.nats.items()} == {
        name: set(values) for name, values in asked.choices.items()
    }
    first = {name: values[0] for name, values in asked.choices.items()}
    inside, latencies_ms = informed.foresee([first])
    candidate = foresee(asked.draw(first), asked)
    assert bool(inside[0]) == candidate.inside
    assert latencies_ms[0] == pytest.approx(candidate.cost.latency_p50_ms.value)


def test_a_study_is_told_of_by_tenths(tmp_path):
    found = wear("random", 2 * TENTHS, tmp_path)
    assert len(found["processor_ms"]) == TENTHS and len(found["resident_bytes"]) == TENTHS + 1
    assert all(ms > 0 for ms in found["processor_ms"])


def test_what_is_beside_evaluations_leaves_them_out(tmp_path):
    found = outside(per_layer=False, sampler="random", trials=3, seconds=0.2, folder=tmp_path)
    assert found["wall_s"] > 0 and found["share_of_wall"] == pytest.approx(
        found["wall_s"] / (found["wall_s"] + 0.2), rel=0.05
    )


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing_that_was_finished(tmp_path):
    found = kill(6, tmp_path)
    assert found["kills"] == 6 and found["candidates"] > 0 and found["workers_ended_by_themselves"] == 4
    assert found["seen_finished_and_lost"] == found["other_than_alone"] == found["finished_twice"] == 0


@pytest.mark.slow
def test_workers_are_borne_by_a_database(server):
    found = bear(server, Load("postgresql", workers=2, seconds=0.5, window_s=5.0))
    assert 0 < found.per_second <= 4.0 and found.workers_ms > 0 and found.database_ms > 0
    assert found.proxy_ms == 0 and found.connections >= 2 and found.attempts >= 0.5
