"""The benchmark of rounding: what it measures, and how."""

import copy
from dataclasses import replace

import pytest
import torch

from autocompress.compression.quantization import QuantizeStep, apply
from autocompress.models.load import adapter_of
from autocompress.shape import LayerShape, ModelShape, WeightGrid, by_block
from benchmarks import fixed_ranges, weight_grids
from benchmarks.mixed_precision import megabytes
from benchmarks.quantization import DRAWS, ROWS, TASKS, report, settings
from benchmarks.quantization_rows import NO_DATA, Scored, Setting, attention_error
from tests.compression.training_data import batches
from tests.conftest import tiny_model


def test_every_rounding_gets_every_draw_and_rounding_to_nearest_one():
    found = settings(quick=False)
    assert len(set(found)) == len(found)
    for task in TASKS:
        for bits, roundings in ROWS.items():
            for rounding in roundings:
                draws = [s.draw for s in found if (s.task, s.bits, s.rounding) == (task, bits, rounding)]
                assert draws == ([0] if rounding == "nearest" else list(DRAWS))
    assert all((setting.batches == 0) == (setting.rounding == "nearest") for setting in found)


def test_attention_is_compared_layer_by_layer_on_equal_inputs():
    """So rounded feed-forward blocks and projections behind attention are no errors of attention."""
    model = tiny_model("bert")
    student = apply(copy.deepcopy(model), QuantizeStep(*by_block((32,) * 3, (2,) * 3), 4), NO_DATA)
    assert attention_error(student, model, batches(2)) == 0
    for layer in adapter_of(student).layers(student):
        layer.get(layer.value).weight.data *= 1.1
        layer.get(layer.value).bias.data *= 1.1
    assert attention_error(student, model, batches(2)) == pytest.approx(0.1, rel=1e-4)
    twice = copy.deepcopy(model)
    layer = adapter_of(twice).layers(twice)[0]
    layer.get(layer.query).weight.data *= 2.0
    assert torch.tensor(attention_error(twice, model, batches(2))) > 0


def test_losses_are_against_floats_in_the_mean_over_draws():
    floats = Scored(Setting("trec6", 32, "nearest", 0, 0, 0), 0.9, 0.0, 0.0)
    first = Scored(Setting("trec6", 3, "optq", 0, 8, 0), 0.88, 0.2, 5.0)
    second = replace(first, setting=replace(first.setting, draw=1), accuracy=0.86, error=0.3)
    *_, row = report([floats, first, second])
    assert (row["bits"], row["rounding"], row["draws"]) == (3, "optq", 2)
    assert row["lost"] == pytest.approx((3.0, 1.0))  # Of 2 and 4 points: sd sqrt(2), over sqrt(2).
    assert row["attention_error"] == pytest.approx((0.25, 0.05))


def test_bytes_of_shared_bits_are_those_of_all_linear_maps_with_their_scales():
    shape = ModelShape("bert", 60, 40, 32, 32, (LayerShape(2, 16, 64), LayerShape(1, 16, 32)), 3)
    attention, ffn = 4 * 32 * 32 * 5 + 4 * 32 * 16 * 8, 2 * 32 * 64 * 3 + 2 * 32 * 32 * 5
    assert megabytes(shape, *by_block((4, 8), (2, 4))) == pytest.approx((attention + ffn) / 8e6, abs=5e-4)


def test_every_way_to_fix_ranges_gets_every_draw_and_ranges_found_as_a_model_runs_one():
    found = fixed_ranges.settings(quick=False)
    assert len(set(found)) == len(found) == len(TASKS) * (2 + 2 * 3 * len(fixed_ranges.DRAWS))
    assert {each.draw for each in found if each.activations in fixed_ranges.FOUND} == {0}
    step = fixed_ranges.step_of(ModelShape("bert", 60, 40, 32, 32, (LayerShape(2, 16, 64),), 3), found[-1])
    assert (step.activations, step.ranges, step.seed) == ("smoothed", "mse", fixed_ranges.DRAWS[-1])
    assert step.fixing.smoothing == 0.5


def test_every_grid_is_rounded_in_every_way_at_every_width():
    found = weight_grids.settings(quick=False)
    assert len(set(found)) == len(found) == len(TASKS) * 3 * 2 * 6
    assert len(weight_grids.settings(quick=True)) == 6
    step = weight_grids.step_of(ModelShape("bert", 60, 40, 32, 32, (LayerShape(2, 16, 64),) * 2, 3), found[-1])
    assert (step.ffn_out_bits, step.rounding, step.grid_at(2)) == ((2, 2), "optq", WeightGrid(128, zero_points=True))


def test_losses_of_fixed_ranges_are_means_over_draws():
    first = fixed_ranges.Scored(fixed_ranges.Setting("trec6", "static", "mse", 0), 0.2, 0.001, 0.002, 7.0)
    second = replace(first, setting=replace(first.setting, draw=1), lost=0.4, nats=0.003)
    (row,) = fixed_ranges.report([first, second])
    assert (row["draws"], row["cpu_s"]) == (2, 7.0)
    assert row["lost"] == pytest.approx((0.3, 0.1))
    assert row["millinats"] == pytest.approx((2.0, 1.0))
