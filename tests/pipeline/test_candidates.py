from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Space
from autocompress.compression.methods import reshape_plan
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.cost import Artifact, Budget, Cost, Estimate, Limit, Measurement
from autocompress.errors import ConfigError
from autocompress.pipeline.candidates import alternatives, anchors, choices, every_plan
from autocompress.pipeline.deliver import Finished, Measured
from autocompress.pipeline.feasibility import assess, fitting
from autocompress.pipeline.finalists import Made, refined
from autocompress.pipeline.fleet import fits_all
from autocompress.pipeline.outcome import choose, exceeded
from autocompress.plan import Chosen, CompressionPlan
from autocompress.predictors.cost_table import CostTable
from autocompress.shape import LayerShape, ModelShape, by_block

TEACHER = ModelShape("bert", 100, 32, 64, 64, (LayerShape(4, 16, 256),) * 4, 2)
SPACE = Space((1, 2, 4), (0.5, 1.0), (0.25, 1.0), (32, 8), (32, 8), (32, 8), distill_steps=7, learning_rate=1e-3)


class ByFormula:
    """Costs that can be worked out by hand; a 10 % interval."""

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        latency = sum(layer.heads + layer.ffn / 64 * (0.4 if layer.ffn_in_bits == 8 else 1) for layer in shape.layers)
        size = 100.0 * len(shape.layers) + (25 if shape.embedding_bits == 8 else 100)
        estimates = [Estimate(value, 0.9 * value, 1.1 * value) for value in (latency, 1.2 * latency, 50.0, size)]
        return Cost(*estimates, calibrated=True, source="formula")

    def predict_many(self, shapes, tokens: int) -> CostTable:
        return CostTable.of(self.predict(shape, tokens) for shape in shapes)


def test_every_combination_of_choices_comes_once():
    found = [tuple(params.values()) for params, _ in every_plan(TEACHER, SPACE)]
    assert sorted(found) == sorted(product(*choices(SPACE).values()))
    assert len(found) == 3 * 2**5


def test_anchors_are_those_that_the_space_holds():
    assert list(anchors(TEACHER, SPACE)) == ["teacher", "int8 teacher", "half depth", "half depth, int8"]
    only_small = Space((1,), (0.5,), (0.25,))
    assert anchors(TEACHER, only_small) == {}


def test_anchors_choose_something_of_every_parameter():
    narrow = replace(SPACE, hidden_keep=(0.5, 1.0), depth_selection=("dynabert", "uniform"))
    for anchor in anchors(TEACHER, narrow).values():
        assert anchor.keys() == choices(narrow).keys()
        assert (anchor["hidden_keep"], anchor["depth_selection"]) == (1.0, "dynabert")
    assert anchors(TEACHER, replace(SPACE, hidden_keep=(0.5,))) == {}


def test_feasibility_needs_no_order_of_layers():
    """Which layers stay changes no shape, and orders are measured on a teacher that ``check`` does not have."""
    measured = replace(SPACE, depth_selection=("replace_one", "dynabert"))
    budget = Budget(size_bytes=Limit(0.5, relative=True))
    found, usual = (assess(TEACHER, space, budget, ByFormula(), 16) for space in (measured, SPACE))
    assert (found.candidates, found.inside) == (usual.candidates, usual.inside)


def test_alternatives_are_rounding_alone_and_half_the_layers():
    plans = alternatives(TEACHER, SPACE)
    rounded, half = (reshape_plan(TEACHER, plan) for plan in plans.values())
    assert (
        all(layer == LayerShape(4, 16, 256, *by_block(8, 8)) for layer in rounded.layers)
        and rounded.embedding_bits == 8
    )
    assert half.layers == TEACHER.layers[:2]
    assert [step.method for step in plans["int8 teacher"].steps] == ["quantize"]


def test_a_made_choice_must_be_one_of_those_offered():
    assert Chosen({"depth": 2}).suggest_categorical("depth", (1, 2, 3)) == 2
    assert Chosen({}).suggest_categorical("depth", (3,)) == 3
    with pytest.raises(ValueError, match="not in tuple"):
        Chosen({"depth": 5}).suggest_categorical("depth", (1, 2, 3))


def test_refining_changes_the_training_steps_alone():
    plan = next(every_plan(TEACHER, SPACE))[1].plan
    longer = refined(plan, 99)
    assert [step.steps for step in longer.steps if step.method == "distill"] == [99]
    training = {"distill", "quantization_aware"}
    assert [step for step in longer.steps if step.method not in training] == [
        step for step in plan.steps if step.method not in training
    ]


AWARE = QuantizationAwareStep(7, 1e-3, seed=0)


@pytest.mark.parametrize(
    ("attention", "ffn", "embedding", "trained"),
    [
        (32, 32, 32, False),
        (16, 16, 16, False),
        (32, 2, 32, True),
        (8, 8, 8, False),
        (3, 32, 16, True),
        (16, 16, 4, True),
    ],
)
def test_finalists_are_trained_on_where_weights_have_4_bits_or_fewer(attention, ffn, embedding, trained):
    step = QuantizeStep(*by_block((attention,) * 2, (ffn,) * 2), embedding)
    plan = CompressionPlan((DistillStep(1, 1e-3, 0), step))
    expected = (DistillStep(5, 1e-3, 0), step, *([AWARE] if trained else []))
    assert refined(plan, 5, AWARE).steps == expected
    assert refined(plan, 5, replace(AWARE, steps=0)).steps == refined(plan, 5).steps == expected[:2]


def test_a_finalist_that_was_trained_on_is_built_again_without_training():
    plan = refined(CompressionPlan((DistillStep(1, 1e-3, 0), QuantizeStep(*by_block((4,), (4,)), 4))), 5, AWARE)
    assert refined(plan, 0).steps == (DistillStep(0, 1e-3, 0), QuantizeStep(*by_block((4,), (4,)), 4))
    assert refined(plan, 5, AWARE) == plan


@pytest.mark.parametrize(("latency", "size"), [(0.5, 1.0), (0.3, 0.5), (0.05, 1.0), (0.4, 0.1)])
def test_feasibility_is_what_trying_every_shape_finds(latency, size):
    budget = Budget(latency_p50_ms=Limit(latency, relative=True), size_bytes=Limit(size, relative=True))
    found = assess(TEACHER, SPACE, budget, ByFormula(), 16)
    costs = {drawn.shape: None for _, drawn in every_plan(TEACHER, SPACE)}
    costs = {shape: ByFormula().predict(shape, 16) for shape in costs}
    teacher = ByFormula().predict(TEACHER, 16)
    limits = {"latency_p50_ms": latency * teacher.latency_p50_ms.value, "size_bytes": size * teacher.size_bytes.value}
    excess = [max(cost.held()[name] / limit - 1 for name, limit in limits.items()) for cost in costs.values()]
    assert found.limits == pytest.approx(limits)
    assert (found.candidates, found.inside) == (len(costs), sum(share <= 0 for share in excess))
    nearest = max(found.nearest_cost.held()[name] / limit - 1 for name, limit in limits.items())
    assert nearest == pytest.approx(min(excess))
    for reach in found.reaches:
        held = [cost.held()[reach.name] for cost in costs.values()]
        assert (reach.least, reach.most) == (min(held), max(held))
    assert found.feasible or found.blocking()


def test_limits_that_can_be_met_alone_but_not_together_are_named():
    """One layer meets the size only with an int8 table; the latency is out of reach there, and so is named."""
    wide = Space((1, 4), (1.0,), (1.0,), (32,), (32,), (32, 8))
    least = {reach.name: reach.least for reach in assess(TEACHER, wide, Budget(), ByFormula(), 16).reaches}
    budget = Budget(latency_p50_ms=Limit(0.5 * least["latency_p50_ms"]), size_bytes=Limit(least["size_bytes"]))
    assert assess(TEACHER, wide, budget, ByFormula(), 16).blocking() == ("latency_p50_ms",)


def test_energy_is_limited_where_the_device_tells_it_and_refused_where_not():
    class Metered(ByFormula):
        def predict(self, shape, tokens):
            cost = super().predict(shape, tokens)
            return replace(cost, energy_mj=cost.latency_p50_ms.scaled(3.0))

    budget = Budget(energy_mj=Limit(0.5, relative=True))
    found = assess(TEACHER, SPACE, budget, Metered(), 16)
    latency = assess(TEACHER, SPACE, Budget(latency_p50_ms=Limit(0.5, relative=True)), ByFormula(), 16)
    assert found.limits["energy_mj"] == pytest.approx(3.0 * latency.limits["latency_p50_ms"])
    assert (found.inside, found.nearest) == (latency.inside, latency.nearest)
    assert {reach.name for reach in found.reaches} == {*(reach.name for reach in latency.reaches), "energy_mj"}
    with pytest.raises(ConfigError, match="nothing tells what the device takes"):
        assess(TEACHER, SPACE, budget, ByFormula(), 16)


def test_of_several_devices_it_is_told_what_each_can_take_and_what_all_can():
    fast, small = Budget(latency_p50_ms=Limit(0.3, relative=True)), Budget(size_bytes=Limit(0.5, relative=True))
    found = {name: assess(TEACHER, SPACE, budget, ByFormula(), 16) for name, budget in (("a", fast), ("b", small))}
    both = Budget(latency_p50_ms=fast.latency_p50_ms, size_bytes=small.size_bytes)
    together = assess(TEACHER, SPACE, both, ByFormula(), 16)
    a, b = found["a"].inside, found["b"].inside
    assert 0 < together.inside < min(a, b)
    assert fitting(found) == f"Of {together.candidates} shapes {a} for a, {b} for b, {together.inside} for all"
    assert fitting({"a": found["a"]}) == f"{a} of {together.candidates} shapes"


def made(name: str, validation: float) -> Made:
    return Made(name, CompressionPlan(), torch.nn.Identity(), None, validation, Artifact(None, "onnxruntime", 8), True)


def measured(latency_ms: float, size: int = 10) -> Measurement:
    return Measurement((latency_ms,) * 3, 100, 50, size, "host", "onnxruntime", 1)


def test_the_best_score_inside_every_measured_limit_is_delivered():
    finalists = [made("a", 0.9), made("b", 0.95), made("c", 0.99)]
    figures = {"a": measured(1.0), "b": measured(2.0), "c": measured(3.0)}
    assert choose(finalists, figures, {"latency_p50_ms": 2.5}).name == "b"
    assert choose(finalists, figures, {"latency_p50_ms": 0.5}).name == "a"  # the one that exceeds it least
    assert choose(finalists, {}, {"latency_p50_ms": 0.5}).name == "c"  # nothing was measured
    assert exceeded(figures["c"], {"latency_p50_ms": 2.5, "size_bytes": 10}) == ("latency_p50_ms",)


def finished(measured_ms: dict[str, float], limit_ms: float, *names: str, feasible: bool = True) -> Finished:
    """A device for which finalists were made, of which some were measured there."""
    scores = {"a": 0.9, "b": 0.95, "c": 0.99}
    figures = {name: measured(latency) for name, latency in measured_ms.items()}
    setting = SimpleNamespace(feasibility=SimpleNamespace(feasible=feasible))
    made_here = [made(name, scores[name]) for name in names]
    return Finished(setting, None, made_here, Measured(figures, {"latency_p50_ms": limit_ms}), ())


def test_the_best_for_all_is_inside_every_limit_of_every_device_as_measured_where_it_was():
    slow = finished({"a": 1.0, "b": 2.0, "c": 3.0}, 2.5, "a", "b", "c")
    absent, lacks_b = finished({}, 0.1, "a", "b", "c"), finished({"a": 7.0, "c": 8.0}, 9.0, "a", "c")
    assert fits_all([slow, absent]) == "b"
    assert fits_all([absent, lacks_b]) == "c"
    assert fits_all([slow, lacks_b]) == "a"
    assert fits_all([slow, finished({"a": 5.0}, 1.0, "a")]) is None
    assert fits_all([slow, finished({}, 1.0, "a", feasible=False)]) is None  # There it is the nearest, and fits not.
