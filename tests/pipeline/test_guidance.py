import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.cost import Cost, Estimate
from autocompress.pipeline import guidance as guiding
from autocompress.pipeline.guidance import Guidance, guidance, proposer_of, warm_start
from autocompress.search.informed import Informed
from autocompress.search.proposing import SAMPLERS
from autocompress.shape import ModelShape
from tests.pipeline.test_candidates import ByFormula
from tests.pipeline.test_warm_start import SHARED, TEACHER, sensitivities


def setting(sampler="informed", *, warm_start=2, feasible=True):
    search = SimpleNamespace(sampler=sampler, warm_start=warm_start, seed=0)
    config = SimpleNamespace(search=search, task=SimpleNamespace(max_tokens=16))
    feasibility = SimpleNamespace(feasible=feasible, limits={"latency_p50_ms": 12.0})
    return fleet(SimpleNamespace(config=config, feasibility=feasibility, predictor=ByFormula()))


class Slower(ByFormula):
    """Another device: layers cost nothing, neurons all."""

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        latency = sum(layer.ffn / 16 for layer in shape.layers)
        return replace(super().predict(shape, tokens), latency_p50_ms=Estimate(latency, 0.9 * latency, 1.1 * latency))


def fleet(first: SimpleNamespace, *others: SimpleNamespace) -> SimpleNamespace:
    """Return ``first`` as a run sees it that has ``others`` beside it."""
    first.everywhere = dict(zip(("one", "two", "three"), (first, *others), strict=False))
    first.feasible = any(each.feasibility.feasible for each in first.everywhere.values())
    return first


def slower(limit_ms: float = 30.0) -> SimpleNamespace:
    made = setting()
    made.predictor, made.feasibility.limits = Slower(), {"latency_p50_ms": limit_ms}
    return made


KNOWN = Guidance(sensitivities(SHARED).nats, [{"depth": 3, "ffn_bits": 8}])


def test_what_is_known_reads_back_from_json_with_choices_that_are_numbers():
    assert Guidance.from_dict(json.loads(json.dumps(KNOWN.to_dict()))) == KNOWN


@pytest.mark.parametrize("of", [setting("tpe", warm_start=0), setting(feasible=False)], ids=["tpe", "infeasible"])
def test_nothing_is_measured_where_nothing_needs_it(of):
    assert guidance(of, None, SHARED, None) is None


def test_nothing_is_measured_where_there_is_nothing_to_choose():
    assert guidance(setting(), None, Space((3,), (1.0,), (1.0,), (32,), (32,), (32,)), None) is None


def test_a_run_gets_the_sampler_that_it_names():
    drawing = Drawing(TEACHER, SHARED)
    assert proposer_of(setting("gp"), drawing, KNOWN) is SAMPLERS["gp"]
    assert isinstance(proposer_of(setting(), drawing, KNOWN), Informed)


def test_candidates_are_foreseen_as_the_predictor_and_the_limits_say():
    drawing = Drawing(TEACHER, SHARED)
    base = dict(sensitivities(SHARED).base)
    candidates = [base, {**base, "depth": 1}, {**base, "ffn_bits": 8}]
    inside, latencies_ms = proposer_of(setting(), drawing, KNOWN).foresee(candidates)
    costs = [ByFormula().predict(drawing(params).shape, 16).latency_p50_ms for params in candidates]
    assert np.array_equal(inside, [cost.high <= 12.0 for cost in costs]) and set(inside.tolist()) == {True, False}
    assert latencies_ms.tolist() == [cost.value for cost in costs]


def held(of: SimpleNamespace, params) -> float:
    return of.predictor.predict(Drawing(TEACHER, SHARED)(params).shape, 16).latency_p50_ms.high


def test_of_a_fleet_is_solved_for_each_device_and_first_for_all_of_them(monkeypatch):
    monkeypatch.setattr(guiding, "measure", lambda *args, **kwargs: sensitivities(SHARED))
    one, two = setting(), slower()
    alone = [guidance(fleet(each), SimpleNamespace(start=SimpleNamespace(shape=TEACHER)), SHARED, None).warm
             for each in (one, two)]  # fmt: skip
    both = fleet(one, two)
    found = guidance(both, SimpleNamespace(start=SimpleNamespace(shape=TEACHER)), SHARED, None)
    assert held(one, found.warm[0]) <= 12.0 and held(two, found.warm[0]) <= 30.0
    assert list(found.warm[1:3]) == [warm[0] for warm in alone]
    assert all(params in found.warm for warm in alone for params in warm)
    both.config.search.warm_start = 1
    assert len(warm_start(both, found)) == 3 and len(warm_start(fleet(setting(warm_start=1)), found)) == 1
    assert warm_start(both, None) == ()


def test_nothing_is_missing_where_one_device_of_a_fleet_cannot_be_met(monkeypatch):
    monkeypatch.setattr(guiding, "measure", lambda *args, **kwargs: sensitivities(SHARED))
    hopeless = slower(0.001)
    hopeless.feasibility.feasible = False
    students = SimpleNamespace(start=SimpleNamespace(shape=TEACHER))
    found = guidance(fleet(setting(), hopeless), students, SHARED, None)
    assert found is not None and found.warm == guidance(setting(), students, SHARED, None).warm


def test_a_proposer_sees_each_device_of_a_fleet_and_what_all_can_take():
    drawing, base = Drawing(TEACHER, SHARED), dict(sensitivities(SHARED).base)
    one, two = setting(), slower()
    candidates = [base, {**base, "depth": 1}, {**base, "ffn_keep": 0.25}, {**base, "depth": 1, "ffn_keep": 0.25}]
    found = proposer_of(fleet(one, two), drawing, KNOWN)
    (first, ms), (second, other_ms), (both, mean_ms) = (see(candidates) for see in (found.foresee, *found.others))
    assert np.array_equal(both, first & second)
    assert first.tolist() == [held(one, each) <= 12.0 for each in candidates]
    assert second.tolist() == [held(two, each) <= 30.0 for each in candidates]
    assert np.allclose(mean_ms, np.sqrt(ms * other_ms))
    assert proposer_of(fleet(one), drawing, KNOWN).others == ()
