import numpy as np
import pytest
import torch

from autocompress.compression.activations.affine import QUANTILES, Affine, fit_channels, fit_tensor


def test_codes_are_integers_of_the_formula_and_clamp_at_both_ends():
    quantizer = Affine(4, torch.tensor([0.5, 0.1]), torch.tensor([3.0, 0.0]))
    x = torch.tensor([[1.2, 0.26], [-9.0, -1.0], [9.0, 9.0]])
    assert quantizer.quantize(x).tolist() == [[2 + 3, 3], [0, 0], [15, 15]]
    torch.testing.assert_close(quantizer.rounded(x), torch.tensor([[1.0, 0.3], [-1.5, 0.0], [6.0, 1.5]]))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_values_inside_the_range_are_within_half_a_level(bits):
    x = torch.rand(500, 6) * torch.tensor([1.0, 100.0, 0.01, 5.0, 1.0, 2.0]) + torch.arange(6)
    quantizer = fit_channels(x, bits)
    assert torch.equal(quantizer.zero, quantizer.zero.round())
    codes = torch.round(x / quantizer.scale) + quantizer.zero
    inside = (codes >= 0) & (codes <= 2**bits - 1)
    assert inside.float().mean() > 0.9
    # f32 rounds x / scale too, which counts where a narrow range lies far from 0.
    bound = quantizer.scale * 0.5001 + x.abs() * 2**-22
    assert ((quantizer.rounded(x) - x).abs() <= bound)[inside].all()


def test_each_channel_takes_the_clipped_range_of_least_error():
    torch.manual_seed(0)
    x = torch.randn(4000, 2)
    x[0, 1] = 1e3  # so far out that clipping it pays at few bits, if many values become finer
    quantizer = fit_channels(x, 8)
    for channel in range(2):
        column = x[:, channel].double().numpy()
        errors = []
        for q in QUANTILES:
            low, high = np.quantile(column, [1 - q, q])
            scale, zero = (high - low) / 255, np.round(-low / ((high - low) / 255))
            codes = np.clip(np.round(column / scale) + zero, 0, 255)
            errors.append(np.square((codes - zero) * scale - column).sum())
        found = float((quantizer.rounded(x) - x)[:, channel].double().square().sum())
        assert found == pytest.approx(min(errors), rel=1e-2)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-3])
def test_a_constant_channel_and_zero_are_held_exactly(value):
    quantizer = fit_channels(torch.full((100, 2), value), 4)
    x = torch.tensor([[value, 0.0]])
    torch.testing.assert_close(quantizer.rounded(x), x)
    assert (quantizer.scale > 0).all()


def test_a_tensor_has_one_scale_that_its_widest_channel_decides():
    x = torch.randn(1000, 4) * torch.tensor([1.0, 1.0, 1.0, 50.0])
    whole, channels = fit_tensor(x, 8), fit_channels(x, 8)
    assert whole.scale.shape == whole.zero.shape == (1,)
    assert whole.scale > 10 * channels.scale[:3].max()
    narrow = slice(0, 3)
    errors = [(each.rounded(x) - x)[:, narrow].square().mean() for each in (whole, channels)]
    assert errors[0] > 100 * errors[1]
