"""Several devices in one search: who can take a candidate, and that it is scored once."""

import math
from collections import Counter

import pytest

from autocompress.cost import Cost, Estimate
from autocompress.search.objective import Deployment, Objective, foresee, limits_of, mean_latency
from autocompress.search.records import Record, finalists, front, records
from autocompress.search.storage import open_study
from autocompress.search.study import search
from tests.search import synthetic
from tests.search.synthetic import ANCHORS, CHOICES, WidthStep, draw, predict, reshape

BOTH = ("wide", "deep")


def by_depth(shape) -> Cost:
    """A second device, on which a layer costs the same however wide it is."""
    latency = Estimate(*(share * 2.0 * len(shape.layers) for share in (1.0, 0.9, 1.1)))
    return Cost(latency, latency, Estimate(1, 1, 1), Estimate(1, 1, 1), calibrated=True, source="another formula")


def objective(limit_ms: float, other_ms: float, score=synthetic.score) -> Objective:
    devices = (Deployment(predict, {"latency_p50_ms": limit_ms}), Deployment(by_depth, {"latency_p50_ms": other_ms}))
    first = devices[0]
    fleet = dict(zip(BOTH, devices, strict=True))
    return Objective(CHOICES, draw, reshape, first.predict, score, first.limits, fleet=fleet)


@pytest.mark.parametrize(
    ("layers", "ffn", "wide", "deep"),
    [(1, 32, True, True), (1, 512, True, True), (2, 512, False, True), (12, 512, False, False), (6, 32, True, False)],
)
def test_a_candidate_is_inside_if_some_device_can_take_it(layers, ffn, wide, deep):
    found = foresee(draw({"layers": layers, "ffn": ffn}), objective(12.0, 8.0))
    assert found.inside == (wide or deep)
    for name, fits in zip(BOTH, (wide, deep), strict=True):
        (excess,) = limits_of(name, found.violations).values()
        assert (excess <= 0) == fits
    assert found.violations["deep/latency_p50_ms"] == pytest.approx(1.1 * 2.0 * layers / 8.0 - 1)
    assert found.cost == found.costs["wide"]


def test_the_latency_of_a_fleet_is_the_geometric_mean_and_of_one_device_its_own():
    found = foresee(draw({"layers": 2, "ffn": 64}), objective(12.0, 8.0))
    assert found.latency_ms == pytest.approx(math.sqrt(4.0 * 4.0))
    assert mean_latency([0.1 + 0.2]) == 0.1 + 0.2
    # In other units of one device the order of two models stays the same.
    one, other = [3.0, 80.0], [4.0, 50.0]
    assert (mean_latency(one) < mean_latency(other)) == (
        mean_latency([1e3 * one[0], one[1]]) < mean_latency([4e3, 50.0])
    )


@pytest.fixture
def found(tmp_path) -> tuple[list[Record], Counter]:
    """The records of a search for two devices, and how often each plan was scored."""
    scored: Counter = Counter()

    def counting(plan):
        scored[plan] += 1
        return synthetic.score(plan)

    study = open_study(f"journal:{tmp_path}/study.log", "run", resume=False)
    search(study, objective(12.0, 8.0, counting), trials=12, seed=3, anchors=ANCHORS)
    return records(study), scored


def test_each_candidate_is_scored_once_for_all_devices_and_none_that_no_device_can_take(found):
    every, counts = found
    scored = [record for record in every if record.score is not None]
    assert len(scored) == len(counts) == 12 and set(counts.values()) == {1}
    assert all(record.on("wide").inside or record.on("deep").inside for record in scored)
    assert [record.state for record in every if not any(record.on(name).inside for name in BOTH)] == ["over budget"] * (
        len(every) - 12
    )
    assert any(not record.inside for record in scored)


def test_each_device_has_a_front_and_finalists_of_its_own_latencies(found):
    every, _ = found
    for name, foreseen in zip(BOTH, (predict, by_depth), strict=True):
        seen = [record.on(name) for record in every]
        inside = [record for record in seen if record.inside]
        for record in seen:
            plan = draw({**record.params, "alone": "one"})
            assert record.latency_ms == foreseen(reshape(plan)).latency_p50_ms.value
            assert set(record.violations) == {"latency_p50_ms"} and record.costs == {}
        assert front(inside)[-1].score == finalists(inside, 1)[0].score
    together = finalists([record for record in every if record.inside], 1)
    assert together and all(together[0].on(name).inside for name in BOTH)


def test_a_study_of_one_device_holds_what_it_always_held(tmp_path):
    study = open_study(f"journal:{tmp_path}/study.log", "run", resume=False)
    search(study, synthetic.objective(), trials=3, seed=3, anchors=ANCHORS)
    for trial in study.get_trials():
        assert set(trial.user_attrs["candidate"]) == {"plan", "cost", "label"}
        assert set(trial.constraints) == {"latency_p50_ms", "0"}  # By its place once more, for the dashboard.
    assert isinstance(draw({"layers": 1, "ffn": 32}).steps[0], WidthStep)
