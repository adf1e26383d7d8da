import json
from types import SimpleNamespace

import numpy as np
import pytest

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.pipeline.guidance import Guidance, guidance, proposer_of
from autocompress.search.informed import Informed
from autocompress.search.proposing import SAMPLERS
from tests.pipeline.test_candidates import ByFormula
from tests.pipeline.test_warm_start import SHARED, TEACHER, sensitivities


def setting(sampler="informed", *, warm_start=2, feasible=True):
    search = SimpleNamespace(sampler=sampler, warm_start=warm_start, seed=0)
    config = SimpleNamespace(search=search, task=SimpleNamespace(max_tokens=16))
    feasibility = SimpleNamespace(feasible=feasible, limits={"latency_p50_ms": 12.0})
    return SimpleNamespace(config=config, feasibility=feasibility, predictor=ByFormula())


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
