from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autocompress.cost import FIGURES, LIMITS, Measurement
from autocompress.errors import OutOfRangeError
from autocompress.predictors.features import FIXED, GROUPED
from autocompress.predictors.figure import Figure
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.sampling import COMMON_BITS, Variety, corners, sample_shapes
from autocompress.predictors.shape_table import ShapeTable
from autocompress.shape import WeightGrid, by_block
from tests.predictors.synthetic import TAIL, TEACHER, TOKENS, fitted, fresh_shapes, sample, samples, true_bytes, true_ms


def test_the_figures_are_those_that_a_budget_can_limit():
    assert (*FIGURES, "energy_mj") == LIMITS


def test_fresh_shapes_cost_what_the_device_takes():
    predictor = fitted()
    errors = []
    for shape in fresh_shapes():
        cost = predictor.predict(shape, TOKENS)
        assert cost.calibrated
        errors.append(cost.latency_p50_ms.value / true_ms(shape) - 1)
        assert cost.latency_p95_ms.value == pytest.approx(TAIL * cost.latency_p50_ms.value)
        assert cost.size_bytes.value == pytest.approx(true_bytes(shape) + 2000 + 2500 * len(shape.layers), rel=0.002)
    assert np.abs(errors).mean() < 0.01


def test_intervals_hold_nine_of_ten_noisy_measurements():
    predictor = fitted(samples(48, noise=0.05))
    rng = np.random.default_rng(9)
    shapes = fresh_shapes(200)
    inside = sum(
        estimate.low <= true_ms(shape) * np.exp(0.05 * rng.standard_normal()) <= estimate.high
        for shape in shapes
        if (estimate := predictor.predict(shape, TOKENS).latency_p50_ms)
    )
    # 200 draws of 0.9 have a deviation of 0.02; one set of 48 samples adds as much again.
    assert inside / len(shapes) > 0.8


def test_the_source_names_device_engine_threads_and_samples():
    assert fitted().predict(TEACHER, TOKENS).source == "my-board, onnxruntime, 2 threads, fitted on 24 samples"


def test_every_corner_is_within_the_range():
    assert fitted().predict_many(corners(TEACHER), TOKENS).known.all()


def test_many_shapes_cost_what_each_of_them_does():
    predictor, shapes = fitted(samples(40, noise=0.03)), fresh_shapes(20)
    table = predictor.predict_many(shapes, TOKENS)
    of_table = predictor.predict_many(ShapeTable.of(shapes), TOKENS)
    assert len(table) == len(of_table) == len(shapes)
    for position, shape in enumerate(shapes):
        single = predictor.predict(shape, TOKENS)
        for cost in (table[position], of_table[position]):
            assert cost.source == single.source
            assert cost.figures() == pytest.approx(single.figures(), rel=1e-5)
            assert cost.held() == pytest.approx(single.held(), rel=1e-5)


def test_energy_is_power_times_latency_one_by_one_or_many_at_once_and_absent_without_power():
    predictor = replace(fitted(), provenance={"power_w": "3"})
    single, (of_many,) = predictor.predict(TEACHER, TOKENS), predictor.predict_many([TEACHER], TOKENS)
    for cost in (single, of_many):
        assert cost.energy_mj is not None
        assert cost.held()["energy_mj"] == pytest.approx(3 * cost.latency_p50_ms.high)
        assert cost.figures()["energy_mj"] == pytest.approx(3 * cost.latency_p50_ms.value)
    assert "energy_mj" not in fitted().predict_many([TEACHER], TOKENS).held()


def test_a_table_tells_which_shapes_the_predictor_knows():
    wider = replace(TEACHER, layers=TEACHER.layers * 2)
    assert fitted().predict_many([TEACHER, wider, TEACHER], TOKENS).known.tolist() == [True, False, True]


def test_the_parts_of_a_model_add_up_to_its_latency_and_equal_layers_take_the_same():
    predictor = fitted(samples(40))
    small = replace(TEACHER.layers[0], heads=1, ffn=64)
    shape = replace(TEACHER, layers=(TEACHER.layers[0], small, TEACHER.layers[0]))
    rest, first, second, third = predictor.layer_shares_ms(shape, TOKENS)
    assert rest + first + second + third == pytest.approx(predictor.predict(shape, TOKENS).latency_p50_ms.value)
    assert first == third > second > 0
    one = replace(TEACHER, layers=TEACHER.layers[:1])
    two = replace(TEACHER, layers=TEACHER.layers[:2])
    assert first == pytest.approx(true_ms(two) - true_ms(one), rel=0.05)


@pytest.mark.parametrize(
    ("shape", "tokens", "feature"),
    [
        (replace(TEACHER, classes=100_000), TOKENS, "gemm_weights_32"),
        (replace(TEACHER, layers=TEACHER.layers[:1]), 2 * TOKENS, "tokens"),
        (replace(TEACHER, layers=TEACHER.layers[:1], hidden=96, embedding=96), TOKENS, "hidden"),
    ],
)
def test_a_shape_outside_the_range_is_refused_with_what_is_outside(shape, tokens, feature):
    predictor = fitted()
    with pytest.raises(OutOfRangeError) as caught:
        predictor.predict(shape, tokens)
    low, high = predictor.ranges[feature]
    assert f" {feature} = " in caught.value.wrong
    assert f"{feature} from {low:g} to {high:g}" in caught.value.right
    assert "autocompress profile" in caught.value.next_step


@pytest.mark.parametrize("bits", [2, 3, 16])
@pytest.mark.parametrize(
    "part", ["attention_in_bits", "attention_out_bits", "ffn_in_bits", "ffn_out_bits", "embedding_bits"]
)
def test_a_width_that_no_sample_had_is_refused_and_one_that_some_had_is_not(bits, part):
    def asked(width):
        if part == "embedding_bits":
            return replace(TEACHER, embedding_bits=width)
        return replace(TEACHER, layers=(replace(TEACHER.layers[0], **{part: width}), *TEACHER.layers[1:]))

    if part == "embedding_bits" and bits < 4:
        bits = 16
    with pytest.raises(OutOfRangeError, match=f"_{bits} = "):
        fitted().predict(asked(bits), TOKENS)
    shapes = sample_shapes(TEACHER, 24, 0, Variety(bits=(bits, *COMMON_BITS)))
    knows = fitted([sample(shape) for shape in shapes])
    assert knows.predict(asked(bits), TOKENS).latency_p50_ms.value == pytest.approx(true_ms(asked(bits)), rel=0.15)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_a_width_of_the_head_that_no_sample_had_is_refused_and_one_that_some_had_is_not(bits):
    asked = replace(EIGHT, head_bits=bits)
    with pytest.raises(OutOfRangeError, match=f"_{bits} = "):
        fitted().predict(asked, TOKENS)
    shapes = sample_shapes(TEACHER, 28, 0, Variety(bits=COMMON_BITS, head_bits=(32, bits)))
    assert {shape.head_bits for shape in shapes} == {32, bits}
    knows = fitted([sample(shape) for shape in shapes])
    for known in (asked, EIGHT):
        assert knows.predict(known, TOKENS).latency_p50_ms.value == pytest.approx(true_ms(known), rel=0.15)


@pytest.mark.parametrize("activations", ["static", "smoothed"])
def test_fixed_ranges_that_no_sample_had_are_refused_and_dynamic_ones_are_served_as_before(activations):
    eight = replace(TEACHER, layers=tuple(each.with_bits(*by_block(8, 8)) for each in TEACHER.layers))
    asked, without = eight.with_activations(activations), fitted()
    assert without.predict(eight, TOKENS).calibrated
    with pytest.raises(OutOfRangeError, match="_ranges = |_elements = "):
        without.predict(asked, TOKENS)
    older = without.to_dict()
    older["ranges"] = {name: ends for name, ends in older["ranges"].items() if name not in FIXED}
    older = FittedPredictor.from_dict(json.loads(json.dumps(older)))
    assert older.predict(eight, TOKENS) == without.predict(eight, TOKENS)
    with pytest.raises(OutOfRangeError, match="_ranges = |_elements = "):
        older.predict(asked, TOKENS)
    knows = fitted(
        [sample(shape) for shape in sample_shapes(TEACHER, 24, 0, Variety(activations=("dynamic", activations)))]
    )
    assert knows.predict(asked, TOKENS).calibrated and knows.predict(eight, TOKENS).calibrated


ZEROS = WeightGrid(32, zero_points=True)
FOUR = replace(TEACHER, layers=tuple(each.with_bits(*by_block(4, 4)) for each in TEACHER.layers))
EIGHT = replace(TEACHER, layers=tuple(each.with_bits(*by_block(8, 8)) for each in TEACHER.layers))


@pytest.mark.parametrize(
    ("usual", "asked", "variety", "what"),
    [
        (EIGHT, EIGHT.with_activations("token"), Variety(activations=("dynamic", "token")), "token_"),
        (FOUR, FOUR.with_grid(WeightGrid(64)), Variety(grids=(WeightGrid(), WeightGrid(64))), "coarse_macs"),
        (FOUR, FOUR.with_grid(ZEROS), Variety(grids=(WeightGrid(), ZEROS)), "zero_point"),
    ],
    ids=["token", "64", "zero points"],
)
def test_grids_that_no_sample_had_are_refused_and_usual_ones_are_served_as_before(usual, asked, variety, what):
    without = fitted()
    with pytest.raises(OutOfRangeError, match=what):
        without.predict(asked, TOKENS)
    older = without.to_dict()
    older["ranges"] = {name: ends for name, ends in older["ranges"].items() if name not in (*GROUPED, "zero_points")}
    older = FittedPredictor.from_dict(json.loads(json.dumps(older)))
    assert older.predict(usual, TOKENS) == without.predict(usual, TOKENS)
    with pytest.raises(OutOfRangeError, match=what):
        older.predict(asked, TOKENS)
    knows = fitted([sample(shape) for shape in sample_shapes(TEACHER, 24, 0, variety)])
    assert knows.predict(asked, TOKENS).calibrated and knows.predict(usual, TOKENS).calibrated


def test_how_many_linear_maps_differ_is_left_free():
    layers = tuple(replace(layer, ffn=32 * (1 + index), heads=1 + index) for index, layer in enumerate(TEACHER.layers))
    assert fitted(samples(9)).predict(replace(TEACHER, layers=layers), TOKENS).calibrated


def test_another_count_of_classes_is_no_other_model():
    cost = fitted().predict(replace(TEACHER, classes=20), TOKENS)
    assert "extrapolated" not in cost.source


def test_extrapolation_says_so_and_widens_the_interval_the_more_the_farther():
    predictor = fitted(samples(noise=0.03))

    def width(layers: int) -> float:
        cost = predictor.predict(replace(TEACHER, layers=TEACHER.layers[:1] * layers), TOKENS, extrapolate=True)
        assert cost.source.endswith("extrapolated") == (layers > 4)
        return (cost.latency_p50_ms.high - cost.latency_p50_ms.low) / cost.latency_p50_ms.value

    assert width(4) < width(6) < width(8)


def test_a_sample_takes_its_figures_from_a_measurement():
    measurement = Measurement((3.0, 1.0, 2.0), 100, 10, 50, "host", "onnxruntime", 1)
    sample = Sample.of(TEACHER, TOKENS, measurement)
    assert (sample.latency_p50_ms, sample.latency_p95_ms) == (2.0, 3.0)
    assert (sample.peak_memory_bytes, sample.base_memory_bytes, sample.size_bytes) == (100, 10, 50)


def test_a_sample_left_out_of_the_fit_is_foreseen_by_fits_that_did_not_see_it_and_files_keep_that():
    some = samples(24)
    wild = [replace(some[0], latency_p50_ms=3 * some[0].latency_p50_ms), *some[1:]]
    figure = fitted(wild).figures["latency_p50_ms"]
    said = figure.left_out()
    assert said.shape == (24, 3) and said[0, 0] == pytest.approx(some[0].latency_p50_ms, rel=0.1)
    assert (said[:, 1] <= said[:, 0]).all() and (said[:, 0] <= said[:, 2]).all()
    assert Figure.from_dict(json.loads(json.dumps(figure.to_dict()))) == figure
    older = {name: value for name, value in figure.to_dict().items() if name != "out_of_fold"}
    assert len(Figure.from_dict(older).left_out()) == 0
