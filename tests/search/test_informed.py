from itertools import islice, product

import numpy as np
import pytest

from autocompress.search.informed import Informed
from autocompress.search.proposing import Known, Result

CHOICES = {"depth": (2, 4, 6), "ffn": (1, 2, 3, 4), "bits": (4, 8, 32), "recipe": ("a", "b")}
NATS = {
    "depth": {2: 1.0, 4: 0.2, 6: 0.0},
    "ffn": {1: 0.4, 2: 0.1, 3: 0.02, 4: 0.0},
    "bits": {4: 0.05, 8: 0.01, 32: 0.0},
}
EVERY = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]


def latency_ms(params) -> float:
    return params["depth"] * (1 + params["ffn"] * {4: 0.4, 8: 0.5, 32: 1.0}[params["bits"]])


def score(params) -> float:
    """What training makes up for: of depth nearly all, of bits nothing; and one recipe is better."""
    lost = {name: costs[params[name]] for name, costs in NATS.items()}
    return 0.9 - 0.02 * lost["depth"] - 0.1 * lost["ffn"] - 1.0 * lost["bits"] + 0.01 * (params["recipe"] == "b")


def informed(limit_ms: float) -> Informed:
    def foresee(candidates):
        latencies = np.array([latency_ms(each) for each in candidates])
        return latencies <= limit_ms, latencies

    return Informed(NATS, foresee)


def result(params) -> Result:
    return Result(params, score(params), latency_ms(params), 0.001)


def test_proposals_are_different_and_inside_the_budget():
    found = list(informed(8.0).propose(CHOICES, Known([], []), (0, 0)))
    keys = [tuple(sorted(each.items())) for each in found]
    assert len(set(keys)) == len(keys) > 5
    assert all(latency_ms(each) <= 8.0 for each in found)


def test_the_same_knowledge_and_seed_give_the_same_proposals():
    known = Known([result(each) for each in EVERY[::9]], EVERY[5:7])
    first, again, other = (list(informed(12.0).propose(CHOICES, known, (1, at))) for at in (7, 7, 8))
    assert first == again != other


def test_before_any_score_the_choices_that_cost_least_come_first():
    for place in range(6):  # Half of the places look below a smaller latency.
        (first, *_) = informed(8.0).propose(CHOICES, Known([], []), (0, place))
        below = [each for each in EVERY if latency_ms(each) <= latency_ms(first)]
        costs = [sum(costs[each[name]] for name, costs in NATS.items()) for each in [first, *below]]
        assert costs[0] == pytest.approx(min(costs))


@pytest.mark.parametrize("limit_ms", [6.0, 10.0, 16.0])
def test_the_best_inside_the_budget_is_found_with_few_scores(limit_ms):
    """Of 72 candidates; nats alone would mislead, as bits cost five times what they say and depth a fifth."""
    best = max(score(each) for each in EVERY if latency_ms(each) <= limit_ms)
    results: list[Result] = []
    for place in range(16):
        tried = [each.params for each in results]
        proposals = informed(limit_ms).propose(CHOICES, Known(results, []), (0, place))
        results.append(result(next(each for each in proposals if each not in tried)))
    assert max(each.score for each in results) >= best - 0.002


def test_what_is_in_work_is_not_tried_at_its_side():
    """Candidates in work count as scored as expected, so that the next is another one."""
    known = [result(each) for each in EVERY[::7]]
    (first, *_) = informed(10.0).propose(CHOICES, Known(known, []), (3, 1))
    (other, *_) = informed(10.0).propose(CHOICES, Known(known, [first]), (3, 1))
    assert other != first


def test_a_budget_that_nothing_meets_yields_nothing():
    assert not list(islice(informed(0.1).propose(CHOICES, Known([], []), (0, 0)), 1))


def for_two(first_ms: float, other_ms: float) -> Informed:
    """Two devices: one on which depth costs, one on which width does."""

    def deep(candidates):
        latencies = np.array([10.0 * each["depth"] for each in candidates])
        return latencies <= first_ms, latencies

    def wide(candidates):
        latencies = np.array([10.0 * each["ffn"] for each in candidates])
        return latencies <= other_ms, latencies

    return Informed(NATS, deep, others=(wide,))


def test_each_two_places_look_for_one_device_in_turn_and_only_for_what_fits_it():
    known = Known([result(each) for each in EVERY[::7]], EVERY[3:5])
    for place in range(8):
        found = list(islice(for_two(20.0, 10.0).propose(CHOICES, known, (0, place)), 6))
        assert (
            {each["depth"] for each in found} == {2} if place // 2 % 2 == 0 else {each["ffn"] for each in found} == {1}
        )


def test_a_device_that_nothing_fits_leaves_its_places_to_the_next():
    for place in range(4):
        found = list(islice(for_two(1.0, 20.0).propose(CHOICES, Known([], []), (0, place)), 6))
        assert found and all(each["ffn"] <= 2 for each in found)
    assert list(for_two(1.0, 1.0).propose(CHOICES, Known([], []), (0, 0))) == []


def test_what_another_device_can_take_is_no_record_to_beat():
    """The best known is deep; on the device that takes two layers alone, improvement is over the best of these."""
    known = Known([result({"depth": 6, "ffn": 4, "bits": 32, "recipe": "b"}), result(EVERY[0])], [])
    (first, *_) = for_two(20.0, 40.0).propose(CHOICES, known, (0, 1))
    alone = Known([result(EVERY[0])], [])
    (same, *_) = for_two(20.0, 40.0).propose(CHOICES, alone, (0, 1))
    assert first["depth"] == same["depth"] == 2 and first["ffn"] == same["ffn"] == 4
