import random
from itertools import islice
from typing import get_args

import pytest

from autocompress.search.history import History
from autocompress.search.proposing import SAMPLERS, Known, Result
from autocompress.search_config import Sampler

CHOICES = {"layers": tuple(range(1, 9)), "bits": (32, 8, 4, 2), "kind": ("a", "b"), "flag": (False, True)}


def draw(rng: random.Random) -> dict:
    return {name: rng.choice(values) for name, values in CHOICES.items()}


def result(params: dict) -> Result:
    """More layers score more and take longer; kind b is worse and no faster."""
    return Result(params, params["layers"] / 8 - 0.5 * (params["kind"] == "b"), float(params["layers"]))


def known(count: int) -> Known:
    rng = random.Random(0)
    return Known([result(draw(rng)) for _ in range(count)], [draw(rng) for _ in range(3)])


def proposals(sampler: str, about: Known, count: int, place: int = 7) -> list[dict]:
    return list(islice(SAMPLERS[sampler].propose(CHOICES, about, (3, place)), count))


def test_every_proposer_can_be_named_in_a_run_file():
    assert set(get_args(Sampler)) == {*SAMPLERS, "informed"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_choices_and_follow_from_knowledge_and_seed_alone(sampler):
    about, count = known(12), 3
    found = proposals(sampler, about, count)
    assert found == proposals(sampler, about, count)
    assert found != proposals(sampler, about, count, place=8)
    for params in found:
        assert all(params[name] in values for name, values in CHOICES.items()) and set(params) == set(CHOICES)


@pytest.mark.parametrize(("sampler", "learns"), [("tpe", True), ("nsga2", True), ("random", False)])
def test_what_was_found_moves_what_is_proposed(sampler, learns):
    """Of the proposals of 60 places, far fewer are of the kind that is never better where the sampler learns."""
    about = known(60)
    worse = sum(proposals(sampler, about, 1, place)[0]["kind"] == "b" for place in range(60))
    assert (worse < 20) == learns


def test_gaussian_processes_learn_too():
    worse = [proposals("gp", known(20), 1, place)[0]["kind"] == "b" for place in range(3)]
    assert sum(worse) <= 1


def dominated(one: Result, others: list[Result]) -> bool:
    return any(
        other.score >= one.score
        and other.latency_ms <= one.latency_ms
        and (other.score > one.score or other.latency_ms < one.latency_ms)
        for other in others
    )


@pytest.mark.parametrize("most", [0, 1, 7, 40])
def test_of_a_long_search_the_newest_and_the_best_are_kept(most):
    rng = random.Random(1)
    every = [Result({"place": place}, rng.random(), rng.random()) for place in range(300)]
    history = History(most)
    for one in every:
        history.add(one)
    kept = history.results()
    assert len(kept) == most and [one.params["place"] for one in kept] == sorted(one.params["place"] for one in kept)
    newest = most // 2
    assert kept[most - newest :] == every[300 - newest :]
    before = every[: 300 - newest]
    front = [one for one in before if not dominated(one, before)]
    assert len(front) < 20 and (most < 40 or all(one in kept for one in front))
