"""What stands at a place does not depend on who asks, when, and what happened to others."""

from collections.abc import Callable
from functools import partial

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from autocompress.search import sequence as sequence_module
from autocompress.search.objective import Scored
from autocompress.search.places import Ledger
from autocompress.search.proposing import SAMPLERS
from autocompress.search.records import records
from autocompress.search.scoring import reached
from autocompress.search.scoring import score as score_on_ladder
from autocompress.search.sequence import CandidateSequence, Rules
from autocompress.search.study import search
from autocompress.search.workers import Watch, working
from tests.search.synthetic import ANCHORS, CHOICES, draw, glance, objective, predict, reshape, score

optuna.logging.set_verbosity(optuna.logging.WARNING)
TRIALS = 16


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def in_budget(limit_ms: float) -> set[tuple[int, int]]:
    """Return all choices whose upper interval end is inside the limit."""
    return {
        (layers, ffn)
        for layers in CHOICES["layers"]
        for ffn in CHOICES["ffn"]
        if predict(reshape(draw({"layers": layers, "ffn": ffn}))).latency_p50_ms.high <= limit_ms
    }


def fragile(plan) -> Scored:
    """Fail for every plan of some widths."""
    if plan.steps[0].ffn % 96 == 0:
        raise RuntimeError("the loss is not finite")
    return score(plan)


def alone(sampler: str, parallel: int) -> list[dict]:
    how = {"proposer": SAMPLERS[sampler], "parallel": parallel, "anchors": ANCHORS}
    found = search(new_study(), objective(score=fragile, rungs=(glance,)), trials=TRIALS, seed=5, **how)
    assert {record.state for record in found} == {"scored", "stopped", "failed", "over budget"}
    return [dict(record.params) for record in found]


class Played:
    """A worker that is played: what it does when is up to the test."""

    def __init__(self, study: optuna.Study, sampler: str, parallel: int) -> None:
        self.parallel, self.objective = parallel, objective(score=fragile, rungs=(glance,))
        self.ledger = Ledger(study, Watch())
        rules = Rules(5, parallel, SAMPLERS[sampler], ANCHORS)
        self.sequence = CandidateSequence(self.objective, rules, self.ledger)
        self.life = working()
        self.worker, self.held = self.life.__enter__(), None

    def step(self, choose: Callable[[list[int]], int]) -> None:
        """Finish what is held, or take a free place up."""
        self.ledger.refresh()
        if self.held is not None:
            attempt, candidate = self.held
            if candidate.inside:
                score_on_ladder(attempt, candidate, self.objective, partial(reached, self.ledger, self.last))
            else:
                attempt.finish(TrialState.PRUNED)
            self.held = None
        elif free := list(self.ledger.free(TRIALS, self.parallel)):
            place = choose(free)
            params, candidate = self.sequence.at(place)
            about = {"plan": candidate.plan.to_json(), "cost": candidate.cost.to_dict(), "label": ""}
            spaces = {name: optuna.distributions.CategoricalDistribution(CHOICES[name]) for name in params}
            attempt = self.ledger.take(place, self.worker, params=params, distributions=spaces, candidate=about)
            self.held, self.last = attempt and (attempt, candidate), place - self.parallel

    def die(self) -> None:
        """End without a word."""
        self.life.__exit__(None, None, None)


@pytest.fixture(scope="module")
def expected() -> Callable[[str, int], list[dict]]:
    kept: dict[tuple[str, int], list[dict]] = {}

    def of(sampler: str, parallel: int) -> list[dict]:
        if (sampler, parallel) not in kept:
            kept[sampler, parallel] = alone(sampler, parallel)
        return kept[sampler, parallel]

    return of


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_whoever_works_in_whatever_order_and_dies_at_whatever_moment_the_candidates_are_the_same(
    expected, sampler, data
):
    parallel = data.draw(st.integers(1, 5), label="parallel")
    study = new_study()
    played = [Played(study, sampler, parallel) for _ in range(3)]
    deaths = data.draw(st.integers(0, 2), label="deaths")
    for _ in range(400):
        turn = data.draw(st.integers(0, 8), label="turn") if deaths else data.draw(st.integers(0, 5), label="turn")
        worker = turn % 3
        if turn > 5:  # Too often would be a candidate that failed.
            deaths -= 1
            played[worker].die()
            played[worker] = Played(study, sampler, parallel)
        else:
            played[worker].step(lambda free: data.draw(st.sampled_from(free), label="place"))
        ledger = Ledger(study)
        ledger.refresh()
        if not ledger.in_work() and not list(ledger.free(TRIALS, parallel)):
            break
    for each in played:
        each.step(lambda free: free[0])
        each.die()
    assert [dict(record.params) for record in records(study)] == expected(sampler, parallel)


def test_gaussian_processes_give_the_same_candidates_again():
    def found() -> list[dict]:
        records = search(new_study(), objective(), trials=10, seed=5, proposer=SAMPLERS["gp"], parallel=1)
        return [dict(record.params) for record in records]

    assert found() == found()


def test_how_many_may_be_in_work_at_once_is_part_of_what_decides():
    assert alone("tpe", 1) != alone("tpe", 4)


def test_equal_anchors_stand_once_and_each_plan_once():
    again = [*ANCHORS, {**ANCHORS[0], "alone": "another name of what has one choice"}]
    found = search(new_study(), objective(), trials=20, seed=0, anchors=again)
    plans = [record.key for record in found]
    assert len(set(plans)) == len(plans)


def test_the_search_ends_where_nothing_new_inside_the_budget_is_left():
    ended = []
    found = search(new_study(), objective(8.0), trials=500, seed=1, on_exhausted=lambda: ended.append(True))
    assert {(record.params["layers"], record.params["ffn"]) for record in found} == in_budget(8.0)
    assert len(found) == len(in_budget(8.0)) > 5 and ended == [True]


def test_the_one_candidate_inside_a_tight_budget_is_found():
    """Its cost is 1.1 * (1 + 32 / 64) = 1.65 ms, and no other's is below 2."""
    (found,) = search(new_study(), objective(1.7), trials=3, seed=2)
    assert found.params == {"layers": 1, "ffn": 32} and in_budget(1.7) == {(1, 32)}


def test_of_a_large_space_chance_tries_a_part(monkeypatch):
    monkeypatch.setattr(sequence_module, "DRAWS", 40)
    found = search(new_study(), objective(30.0), trials=30, seed=3, proposer=SAMPLERS["random"])
    assert len({record.key for record in found}) == 30


def test_names_with_one_choice_are_not_asked_for():
    (found,) = search(new_study(), objective(), trials=1, seed=0)
    assert set(found.params) == {name for name, values in CHOICES.items() if len(values) > 1}
