import math

import pytest
import torch

from autocompress.compression.activations import tangent
from autocompress.compression.activations.attention_maps import AttentionMap, squared_error
from autocompress.compression.activations.tangent import Tangent
from autocompress.errors import ConfigError

SETTINGS = [(bits, top, a, c) for bits in (3, 4, 6, 8) for top in (1.0, 0.37) for a, c in tangent._grid()]


def test_codes_and_levels_are_those_of_the_formula():
    quantizer, x = Tangent(4, 0.8, 2.0, 0.6), torch.rand(1000).double()
    low, high = math.tan(-2.0 * 0.6), math.tan(2.0 * 0.4)
    t = torch.tan(2.0 * ((x / 0.8).clamp(0, 1) - 0.6))
    codes = torch.round(15 * (t - low) / (high - low))
    assert torch.equal(quantizer.quantize(x), codes.long())
    values = 0.8 * (0.6 + torch.atan(low + codes * (high - low) / 15) / 2.0)
    torch.testing.assert_close(quantizer.dequantize(codes.long()).double(), values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_round_trips_are_idempotent_and_levels_rise_from_zero_to_the_top(bits):
    for setting in (one for one in SETTINGS if one[0] == bits):
        quantizer = Tangent(*setting)
        codes = torch.arange(2**bits)
        assert torch.equal(quantizer.quantize(quantizer.dequantize(codes)), codes), setting
        assert (quantizer.levels.diff() > 0).all(), setting
        assert (float(quantizer.levels[0]), float(quantizer.levels[-1])) == (0.0, pytest.approx(setting[1]))


def test_codes_never_fall_where_probabilities_rise_and_what_is_above_the_top_is_the_top():
    quantizer = Tangent(4, 0.5, 2.5, 0.55)
    codes = quantizer.quantize(torch.linspace(0, 1, 5001))
    assert (codes.diff() >= 0).all()
    assert set(codes[2500:].tolist()) == {15}


def test_levels_are_denser_at_both_ends_than_in_the_middle():
    gaps = Tangent(4, 1.0, 3.0, 0.5).levels.diff()
    assert gaps.argmax() == 7  # the gap around the centre
    torch.testing.assert_close(gaps, gaps.flip(0))  # a centre of a half: both ends alike
    lower = Tangent(4, 1.0, 2.0, 0.7).levels.diff()
    assert lower[0] < lower[-1] < lower.max()  # a larger centre favours 0


@pytest.mark.parametrize(("steepness", "centre"), [(3.2, 0.5), (2.0, 0.8), (2.0, 0.2), (0.0, 0.5)])
def test_a_tangent_with_a_pole_inside_the_range_is_refused(steepness, centre):
    with pytest.raises(ConfigError, match=f"steepness {steepness:g} around {centre:g}"):
        Tangent(4, 1.0, steepness, centre)


def test_nothing_on_the_grid_is_better_than_what_is_fitted():
    torch.manual_seed(0)
    maps = [AttentionMap(torch.softmax(4 * torch.randn(2, 20, 20), -1), torch.randn(2, 20, 8))]
    least = squared_error(tangent.fit(maps, 4), maps)
    grid = list(tangent._grid())
    assert least <= min(squared_error(Tangent(4, 1.0, a, c), maps) for a, c in grid)
    assert {c for _, c in grid} == set(tangent.CENTRES)
