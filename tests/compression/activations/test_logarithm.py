import math

import pytest
import torch

from autocompress.compression.activations.attention_maps import AttentionMap, squared_error
from autocompress.compression.activations.logarithm import Logarithm, fit_adalog, fit_log2, fit_log_sqrt2


def test_levels_of_base_sqrt2_are_those_of_shifts_and_one_factor():
    levels = Logarithm(4, 0.9, 0.5).levels
    for q in range(15):
        odd = math.sqrt(2) if q % 2 else 1.0
        assert float(levels[q]) == pytest.approx(0.9 * 2.0 ** -math.ceil(q / 2) * odd, rel=1e-6)
    assert (len(levels), float(levels[15])) == (16, 0.0)


@pytest.mark.parametrize("step", [1.0, 0.5, 20 / 37])
def test_codes_round_the_logarithm_and_what_is_below_the_range_becomes_zero(step):
    quantizer, x = Logarithm(3, 1.0, step), torch.rand(1000)
    expected = [min(7, round(-math.log2(value) / step)) for value in x.tolist()]
    assert quantizer.quantize(x).tolist() == expected
    below = 2.0 ** (-6.6 * step)  # nearer to the seventh level, which is 0, than to the sixth
    assert quantizer.dequantize(quantizer.quantize(torch.tensor([below, 0.0]))).tolist() == [0.0, 0.0]


def test_the_official_code_has_a_value_more_than_its_bits_can_tell_apart():
    honest, official = Logarithm(4, 1.0, 0.5), Logarithm(4, 1.0, 0.5, spare_zero=True)
    x = 2.0 ** torch.linspace(-12, 0, 1000)
    assert (len(honest.quantize(x).unique()), len(official.quantize(x).unique())) == (16, 17)
    assert torch.equal(official.levels[:15], honest.levels[:15])
    assert float(official.levels[15]) == pytest.approx(2.0**-7.5)


def test_the_base_that_the_levels_were_made_with_is_found():
    step = 30 / 37
    powers = torch.randint(0, 7, (4, 200), generator=torch.Generator().manual_seed(0))
    maps = [AttentionMap(2.0 ** (-step * powers))]
    found = fit_adalog(maps, 3)
    assert (found.step, found.top) == (pytest.approx(step), pytest.approx(1.0))
    assert squared_error(found, maps) < 1e-9 < squared_error(fit_log2(maps, 3), maps)


def test_fixed_bases_are_fitted_by_their_largest_value_alone():
    maps = [AttentionMap(torch.softmax(3 * torch.randn(2, 30, 30), -1))]
    assert (fit_log2(maps, 4).step, fit_log_sqrt2(maps, 4).step) == (1.0, 0.5)
    assert squared_error(fit_log2(maps, 4), maps) <= squared_error(
        Logarithm(4, float(maps[0].probabilities.max()), 1.0), maps
    )
