import optuna
import pytest

from benchmarks.search import Replay, _on_front, evaluations, hypervolumes, scores_of

WORST = (10.0, 0.5)


@pytest.fixture(scope="module")
def replay():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Replay.load()


def test_the_hypervolume_is_the_area_under_the_front_and_only_grows_by_what_lifts_it():
    tried = [(6.0, 0.8), (8.0, 0.7), (2.0, 0.6), (4.0, 0.9)]
    # 4 x 0.3; nothing; 4 x 0.1 more to the left; then 2 x 0.1 and 6 x 0.4.
    assert hypervolumes(tried, WORST) == pytest.approx([1.2, 1.2, 1.6, 2.6])


def test_a_point_is_on_the_front_if_none_is_as_good_in_both():
    every = [(6.0, 0.8), (8.0, 0.7), (2.0, 0.6), (6.0, 0.7)]
    assert [point for point in every if _on_front(point, every)] == [(6.0, 0.8), (2.0, 0.6)]


def test_the_table_has_every_candidate_of_its_space_once(replay):
    assert len(replay.rows) == 2400
    assert all(
        0.5 < accuracy < 1 and 0 < latency_ms < held_ms for accuracy, _, latency_ms, held_ms in replay.rows.values()
    )


def test_a_search_on_the_table_scores_only_what_is_inside_the_budget_and_stops_when_it_has_enough(replay):
    limit_ms = replay.limit_ms(0.1)
    inside = {
        (latency_ms, accuracy) for accuracy, _, latency_ms, held_ms in replay.rows.values() if held_ms <= limit_ms
    }
    tried = scores_of(replay, limit_ms, replay.informed(limit_ms), 0, most=6)
    assert len(tried) == 6 and set(tried) <= inside
    best = max(score for _, score in tried)
    stopped = scores_of(replay, limit_ms, replay.informed(limit_ms), 0, most=6, enough=best)
    assert stopped == tried[: [score for _, score in tried].index(best) + 1]


def test_chance_takes_as_long_as_its_order_says(replay):
    limit_ms = replay.limit_ms(0.1)
    counts = [evaluations(replay, limit_ms, None, seed) for seed in range(200)]
    inside = [accuracy for accuracy, _, _, held_ms in replay.rows.values() if held_ms <= limit_ms]
    good = sum(accuracy >= max(inside) - 0.005 for accuracy in inside)
    # The first of g good ones among n in a random order comes at (n + 1) / (g + 1), in the mean.
    assert sum(counts) / len(counts) == pytest.approx((len(inside) + 1) / (good + 1), rel=0.2)
