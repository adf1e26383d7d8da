import pytest

from autocompress.errors import ConfigError
from autocompress.pipeline.export import choose
from autocompress.search.records import Record


def record(number: int, score: float | None, latency_ms: float = 1.0, size: float = 1.0) -> Record:
    figures = {"latency_p50_ms": latency_ms, "size_bytes": size}
    cost = {name: {"value": value, "low": value, "high": value} for name, value in figures.items()}
    state = "over budget" if score is None else "scored"
    plan = [{"method": "depth", "kept": [number]}]
    return Record(number, number, state, {}, plan, cost, f"#{number}", {}, score)


FOUND = [
    record(0, None, 0.1, 0.1),
    record(1, 0.95, 5.0, 50),
    record(2, 0.93, 3.0, 60),
    record(3, 0.94, 4.0, 40),
    record(4, 0.60, 1.0, 10),
]


@pytest.mark.parametrize(("pick", "number"), [("best", 1), ("fastest", 2), ("smallest", 3)])
def test_a_pick_is_the_best_fastest_or_smallest_within_the_allowed_loss(pick, number):
    assert choose(FOUND, pick, floor=0.93).number == number


@pytest.mark.parametrize("pick", ["fastest", "smallest"])
def test_where_none_is_within_the_allowed_loss_all_that_were_scored_count(pick):
    assert choose(FOUND, pick, floor=0.99).number == 4


def test_a_trial_is_picked_by_its_number_even_if_it_was_over_budget():
    assert choose(FOUND, "trial:0", floor=0.93).number == 0


@pytest.mark.parametrize("pick", ["trial:9", "trial:", "nicest", ""])
def test_a_pick_that_names_none_is_answered_with_those_that_there_are(pick):
    with pytest.raises(ConfigError, match=r"1, 2, 3, 4\."):
        choose(FOUND, pick, floor=0.5)


def test_a_run_without_scored_candidates_says_so():
    with pytest.raises(ConfigError, match="scored are none"):
        choose(FOUND[:1], "best", floor=0.5)
