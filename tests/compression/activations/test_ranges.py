import copy

import numpy as np
import pytest
import torch

from autocompress.compression.activations.ranges import (
    HELD,
    SHRINK,
    FixedRange,
    Fixing,
    channel_extremes,
    fix_range,
    histogram,
    least_squares_range,
    levels_of,
    output_errors,
    percentile_range,
)
from autocompress.compression.activations.smoothing import smoothing_scales
from autocompress.compression.captures import module_inputs
from autocompress.compression.rounding.layer_inputs import LayerInputs
from autocompress.compression.rounding.levels import round_layers
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedLinear
from autocompress.shape import by_block
from tests.compression.padded import padded
from tests.compression.quadratics import correlated
from tests.conftest import tiny_model

BATCHES = [padded(4, 0), padded(6, 1)]
KINDS = ["minmax", "percentile", "mse"]


def fixed(fixing, batches=BATCHES, bits=((8, 8),) * 3, rounding="nearest"):
    student = copy.deepcopy(tiny_model("bert"))
    round_layers(student, [by_block(*pair) for pair in bits], rounding, batches, fixing=fixing)
    return student


def error(values, ends):
    """Mean squared error of ``values`` rounded over a range, in float64."""
    step, zero = levels_of(*ends)
    levels = torch.round(values.double() / step).clamp(-zero, 255 - zero)
    return float((levels * step - values.double()).square().mean())


def counted(values):
    ends = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return histogram(values.chunk(3), *ends), *ends


def heavy():
    """60,000 values about 0, and one far out."""
    return torch.cat([torch.randn(60_000, generator=torch.Generator().manual_seed(0)), torch.tensor([40.0])])


def test_a_range_has_255_steps_and_0_is_one_of_its_levels():
    assert levels_of(-1.0, 4.1) == (pytest.approx(5.1 / 255), 50)
    assert levels_of(0.0, 2.55) == (pytest.approx(0.01), 0)
    assert levels_of(-2.55, 0.0) == (pytest.approx(0.01), 255)
    assert levels_of(0.0, 0.0) == (1.0, 0)


def test_extremes_are_those_of_each_channel_over_all_parts():
    parts = [torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.zeros(0, 2), torch.tensor([[2.0, -5.0]])]
    low, high = channel_extremes(parts)
    assert (low.tolist(), high.tolist()) == ([1.0, -5.0], [3.0, 0.0])


def test_a_percentile_leaves_the_rarest_values_outside_and_no_more():
    values = heavy()
    counts, *ends = counted(values)
    assert counts.sum() == len(values)
    low, high = percentile_range(counts, *ends)
    bin_width, spare = (ends[1] - ends[0]) / len(counts), (1 - HELD) / 2 * len(values)
    assert (values < low).sum() <= spare < (values < low + bin_width).sum()
    assert (values > high).sum() <= spare < (values > high - bin_width).sum()


def test_a_percentile_range_holds_0_where_all_values_lie_at_one_side():
    low, high = percentile_range(*counted(10 + torch.rand(30_000)))
    assert low == 0.0 and 10.99 < high < 11.0


def test_the_range_of_least_error_is_the_best_of_those_that_are_tried():
    """By hand, on the values themselves; a bin is narrower than a third of any step."""
    values = heavy()
    counts, low, high = counted(values)
    best = min(error(values, (left * low, right * high)) for left in SHRINK for right in SHRINK)
    assert error(values, least_squares_range(counts, low, high)) <= 1.02 * best
    assert best < 0.95 * error(values, (low, high))


def test_a_range_that_is_filled_evenly_is_not_clipped():
    counts, low, high = counted(torch.linspace(-1, 3, 100_000))
    assert least_squares_range(counts, low, high) == (low, high)
    flat, only, _ = counted(-torch.rand(10_000))
    assert least_squares_range(flat, only, 0.0)[1] == 0.0


def read_by(student, path):
    """What a linear of each layer reads of the calibration documents, padding left out."""
    found = []
    for layer in adapter_of(student).layers(student):
        pairs = module_inputs(student, [layer.get(getattr(layer, path))], BATCHES)
        found.append((layer.get(getattr(layer, path)), torch.cat([x[b.attention_mask.bool()] for b, (x,) in pairs])))
    return found


@pytest.mark.parametrize("path", ["query", "output", "ffn_in", "ffn_out"])
def test_a_range_is_that_of_what_arrives_behind_everything_that_is_rounded(path):
    for linear, x in read_by(fixed(Fixing("minmax")), path):
        step, zero = levels_of(min(0.0, float(x.min())), max(0.0, float(x.max())))
        torch.testing.assert_close(linear.quantizer.step, torch.tensor([step]))
        assert linear.quantizer.zero.tolist() == [zero]
        assert linear.quantizer.inverse is None


def test_smoothed_channels_are_divided_by_the_scales_of_all_readers_and_weights_make_up_for_it():
    dense = tiny_model("bert")
    dense.bert.embeddings.LayerNorm.weight.data[5] *= 30  # An outlier, so that layer 0 is smoothed.
    student = copy.deepcopy(dense)
    round_layers(student, ((8,) * 4,) * 3, "nearest", BATCHES, fixing=Fixing("minmax", 0.5))
    layer, floats = adapter_of(student).layers(student)[0], adapter_of(dense).layers(dense)[0]
    weights = [floats.get(path).weight.detach() for path in (floats.query, floats.key, floats.value)]
    ((_, x), *_) = read_by(student, "query")
    scales = smoothing_scales(x.abs().amax(0), weights, 0.5)
    step, zero = levels_of(float((x / scales).min()), float((x / scales).max()))
    for path, weight in zip((layer.query, layer.key, layer.value), weights, strict=True):
        module = layer.get(path)
        torch.testing.assert_close(module.quantizer.inverse, 1 / (step * scales))
        assert module.quantizer.zero.tolist() == [zero]
        back = module.weight * module.scale[:, None] / scales
        assert ((back - weight).abs() <= module.scale[:, None] / scales * 0.5001).all()


class Reading(LayerInputs):
    """Stands for documents of which a linear reads ``x``, without padding."""

    def __init__(self, x):
        self.of = lambda path: iter([(x, torch.ones(x.shape[:2], dtype=torch.bool))])


def test_an_outlier_channel_costs_little_where_channels_are_smoothed():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(16, 48, generator=generator), torch.randn(4, 25, 48, generator=generator)
    x[..., 7] *= 100
    lost = {}
    for alpha in (None, 0.5):
        found = fix_range(Reading(x), "linear", [weight], Fixing("minmax", alpha))
        levels = found.quantizer()(x) * found.step
        lost[alpha] = float((levels @ found.readers(weight).T - x @ weight.T).square().mean())
    # One range for all: steps of about 100 * 3 * 2 / 255; smoothed, they are about ten times smaller.
    assert lost[0.5] < lost[None] / 30


def test_smoothing_alone_changes_nothing_and_a_channel_that_never_moved_keeps_its_scale():
    x, weight = torch.randn(2, 5, 8), torch.randn(3, 8)
    x[..., 2], x[..., 3] = 0.0, 50 * x[..., 3]
    found = fix_range(Reading(x), "linear", [weight], Fixing("minmax", 0.8))
    torch.testing.assert_close((x / found.scales) @ found.readers(weight).T, x @ weight.T)
    assert float(found.scales[2]) == 1.0 < float(found.scales[3])


def test_a_range_is_smoothed_only_where_outputs_come_nearer_to_the_floats_by_it():
    """At alpha 0 columns of weights end at magnitude 1: activations of a large one outgrow all others."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(16, 48, generator=generator), torch.randn(4, 25, 48, generator=generator)
    weight[:, 7] *= 20
    kept, dropped = (fix_range(Reading(x), "linear", [weight], Fixing("minmax", alpha)) for alpha in (1.0, 0.0))
    assert not torch.equal(kept.scales, torch.ones(48))
    assert torch.equal(dropped.scales, torch.ones(48))
    plain = fix_range(Reading(x), "linear", [weight], Fixing("minmax"))
    assert (dropped.step, dropped.zero, plain.scales) == (plain.step, plain.zero, None)


def test_errors_are_those_of_rounded_activations_times_rounded_weights():
    x, weight, scales = torch.randn(30, 12), torch.randn(5, 12), torch.rand(12) + 0.5
    ways = FixedRange(0.03, 120), FixedRange(0.04, 128, scales)
    expected = []
    for way, by in zip(ways, (np.ones(12), scales.double().numpy()), strict=True):
        values = weight.double().numpy() * by
        steps = np.abs(values).max(1, keepdims=True) / 127
        levels = np.clip(np.rint(x.double().numpy() / by / way.step) + way.zero, 0, 255) - way.zero
        moved = levels * way.step @ (np.rint(values / steps) * steps).T - (x @ weight.T).double().numpy()
        expected.append((moved**2).sum())
    np.testing.assert_allclose(output_errors(ways, weight, x.chunk(3)), expected, rtol=1e-3)


def test_a_quantizer_clips_what_lies_beyond_its_range_and_rounds_half_to_even():
    ends = torch.tensor([[[-1.0], [255 / 64 - 1.0]]])  # A step of exactly 1 / 64.
    quantizer = fix_range(Reading(ends), "linear", [], Fixing("minmax")).quantizer()
    x = torch.tensor([-1.0, 255 / 64 - 1.0, -9e30, 9e30, 0.0, 0.5 / 64, 1.5 / 64, 2.5 / 64])
    assert quantizer(x).tolist() == [-64, 191, -64, 191, 0, 0, 2, 2]


@pytest.mark.parametrize("alpha", [None, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_count_and_ranges_are_the_same_again(kind, alpha):
    noisy = copy.deepcopy(BATCHES)
    for batch in noisy:
        batch.input_ids[batch.attention_mask == 0] = 39
    first, second = (fixed(Fixing(kind, alpha), batches).state_dict() for batches in (BATCHES, noisy))
    assert any(name.endswith("quantizer.step") for name in first)
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_only_linears_of_eight_bits_get_a_range():
    student = fixed(Fixing("minmax"), bits=((8, 4), (4, 8), (16, 32)))
    for layer, (attention, ffn) in zip(
        adapter_of(student).layers(student), ((True, False), (False, True), (False, False)), strict=True
    ):
        for paths, has in ((layer.attention_linears, attention), (layer.ffn_linears, ffn)):
            for path in paths:
                module = layer.get(path)
                assert (isinstance(module, QuantizedLinear) and module.quantizer is not None) == has


@pytest.mark.parametrize("rounding", ["optq", "descent"])
def test_levels_of_smoothed_weights_are_chosen_for_smoothed_inputs(rounding):
    """What rounding to nearest and rounding for outputs lose on the documents, in the first output projection."""

    def loss(student):
        layer, dense = (adapter_of(model).layers(model)[0] for model in (student, tiny_model("bert")))
        module, weight = layer.get(layer.output), dense.get(dense.output).weight.detach()
        back = module.weight * module.scale[:, None] * module.quantizer.inverse * module.quantizer.step
        tokens = [x[real] for x, real in LayerInputs(student, BATCHES).of(layer.output)]
        return float(Objective(second_moment([torch.cat(tokens)])[None]).loss((back - weight).double()))

    bits = ((8, 32), (32, 32), (32, 32))
    ways = [fixed(Fixing("minmax", 0.5), bits=bits, rounding=way) for way in (rounding, "nearest")]
    assert loss(ways[0]) < 0.8 * loss(ways[1])


def test_an_objective_of_scaled_inputs_gives_scaled_weights_the_same_loss():
    x, scales, change = correlated(60, 12), torch.rand(12) + 0.5, torch.randn(4, 12).double()
    plain = Objective(second_moment([x])[None])
    assert plain.of_scaled(scales).inputs.dtype == torch.float64
    torch.testing.assert_close(plain.of_scaled(scales).loss(change * scales), plain.loss(change))
