from dataclasses import replace
from itertools import product

import pytest

from autocompress.compression.method import Space, of_layer
from autocompress.compression.methods import draw, reshape_plan
from autocompress.pipeline.candidates import OF_LAYERS, choices, every_plan
from autocompress.pipeline.sensitivities import Sensitivities, largest
from autocompress.pipeline.warm_start import LADDER, WarmStart
from autocompress.plan import Chosen
from autocompress.shape import LayerShape, ModelShape
from tests.pipeline.test_candidates import ByFormula

TEACHER = ModelShape("bert", 100, 32, 64, 64, (LayerShape(4, 16, 256),) * 3, 2)
SHARED = Space((1, 3), (0.5, 1.0), (0.25, 1.0), (32,), (32, 8), (32, 8))
OWN = replace(SHARED, own_layers=(0, 1, 2))
NATS = {"heads_keep": {0.5: 0.2, 1.0: 0.0}, "ffn_keep": {0.25: 0.3, 1.0: 0.0}, "ffn_bits": {32: 0.0, 8: 0.05}}


def sensitivities(space: Space) -> Sensitivities:
    """Later layers matter more; so nothing is equal to anything else."""
    nats: dict[str, dict[object, float]] = {
        "depth": {1: 2.0, 3: 0.0},
        "attention_bits": {32: 0.0},
        "embedding_bits": {32: 0.0, 8: 0.01},
    }
    for name, of in NATS.items():
        if space.own_layers:
            nats |= {of_layer(name, at): {value: loss * (1 + at) for value, loss in of.items()} for at in range(3)}
        else:
            nats[name] = dict(of)
    return Sensitivities(largest(space), nats)


def warm(space: Space) -> WarmStart:
    return WarmStart(TEACHER, space, sensitivities(space), lambda shapes: ByFormula().predict_many(shapes, 16).held())


def held(plan) -> float:
    return ByFormula().predict(reshape_plan(TEACHER, plan), 16).latency_p50_ms.high


@pytest.mark.parametrize("space", [SHARED, OWN], ids=["shared", "own"])
@pytest.mark.parametrize("limit_ms", [26.0, 18.0, 12.0, 6.0])
def test_each_plan_is_the_best_of_the_space_for_its_share_of_the_budget(space, limit_ms):
    found, start = warm(space).ladder({"latency_p50_ms": limit_ms}), sensitivities(space)
    every = [(held(drawn.plan), start.of(params)) for params, drawn in every_plan(TEACHER, space)]
    for solved in found:
        assert held(draw(Chosen(solved.params), TEACHER, space)) <= solved.share * limit_ms
        # Of layers that are left out, what was chosen says nothing and costs nothing.
        assert solved.nats == pytest.approx(min(nats for cost, nats in every if cost <= solved.share * limit_ms))
    shares = [share for share in LADDER if any(cost <= share * limit_ms for cost, _ in every)]
    assert [solved.share for solved in found] == [share for share in shares if share in {each.share for each in found}]
    assert found[0].share == shares[0]


def test_equal_plans_come_once():
    """Where nothing is limited all shares have the largest."""
    found = warm(SHARED).ladder({"latency_p50_ms": 1e6})
    assert [dict(each.params) for each in found] == [largest(SHARED)]


def test_no_plan_is_foreseen_for_a_budget_that_nothing_meets():
    assert warm(SHARED).ladder({"latency_p50_ms": 0.1}) == []


def test_without_limits_nothing_is_made_smaller():
    (first, *_) = warm(OWN).ladder({})
    assert dict(first.params) == largest(OWN)


def test_layers_choose_for_themselves():
    params = {**largest(OWN), of_layer("ffn_keep", 1): 0.25, of_layer("heads_keep", 2): 0.5}
    shape = reshape_plan(TEACHER, draw(Chosen(params), TEACHER, replace(OWN, align=64)))
    assert [(layer.heads, layer.ffn) for layer in shape.layers] == [(4, 256), (4, 64), (2, 256)]
    half = reshape_plan(TEACHER, draw(Chosen({**params, "depth": 1}), TEACHER, replace(OWN, align=64)))
    assert [(layer.heads, layer.ffn) for layer in half.layers] == [(2, 256)]  # The last layer stays, as it chose.


def test_a_space_of_own_layers_asks_for_each_and_for_no_allocation():
    asked = choices(OWN)
    own = {of_layer(name, layer) for name, layer in product(OF_LAYERS, range(3))}
    assert own <= set(asked) and not {"allocation", "bits_allocation", *OF_LAYERS} & set(asked)
    assert set(asked) - own == set(choices(SHARED)) - {"allocation", "bits_allocation", *OF_LAYERS}


def test_the_largest_is_the_most_of_everything():
    space = replace(SHARED, tokens_keep=(0.5, "all", 1.0), embedding_rank=(16, 0), repair=("none", "mask_tuning"))
    found = largest(space)
    assert (found["depth"], found["heads_keep"], found["ffn_bits"]) == (3, 1.0, 32)
    assert (found["tokens_keep"], found["embedding_rank"], found["repair"]) == ("all", 0, "none")
    assert largest(replace(space, tokens_keep=(0.5, 1.0), embedding_rank=(16, 24)))["tokens_keep"] == 1.0
    assert largest(replace(space, embedding_rank=(16, 24)))["embedding_rank"] == 24
