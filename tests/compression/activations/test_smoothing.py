import pytest
import torch

from autocompress.compression.activations.affine import fit_channels, fit_tensor
from autocompress.compression.activations.norm_sites import norm_sites
from autocompress.compression.activations.smoothing import smooth, smoothing_scales
from autocompress.errors import ConfigError, UnsupportedError
from tests.compression.pre_norm import norm_output, pictures, tiny_vit
from tests.conftest import tiny_model


def test_scales_are_those_of_the_formula_over_all_readers():
    weights = [torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.tensor([[-4.0, 0.0]])]
    scales = smoothing_scales(torch.tensor([3.0, 50.0]), weights, 0.25)
    torch.testing.assert_close(scales, torch.tensor([3.0**0.25 / 4.0**0.75, 50.0**0.25 / 2.0**0.75]))


def test_dead_channels_and_columns_stay_finite():
    scales = smoothing_scales(torch.tensor([0.0, 1.0]), [torch.tensor([[1.0, 0.0]])], 0.5)
    torch.testing.assert_close(scales, torch.tensor([1e-5, 1.0 / 1e-5**0.5]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_smoothed_model_computes_what_it_did(alpha):
    model = tiny_vit()
    with torch.no_grad():
        expected = model(**pictures()).logits
        for site in norm_sites(model, pictures(2)):
            smooth(site, norm_output(model, site.norm).abs().amax(0), alpha)
        found = model(**pictures()).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_at_its_ends_alpha_leaves_all_difficulty_to_one_side(alpha):
    model = tiny_vit()
    site = norm_sites(model, pictures(2))[0]

    def sides():
        columns = torch.stack([linear.weight.abs().amax(0) for linear in site.readers]).amax(0)
        return norm_output(model, site.norm).abs().amax(0), columns

    activations, columns = sides()
    smooth(site, activations, alpha)
    even, uneven = sides() if alpha else reversed(sides())
    torch.testing.assert_close(even, torch.ones_like(even))
    torch.testing.assert_close(uneven, activations * columns)


@torch.no_grad()
def test_one_outlier_channel_costs_eight_bits_a_tensor_far_less_after_smoothing():
    model = tiny_vit()
    site = norm_sites(model, pictures(2))[0]
    site.norm.weight.fill_(1.0)
    site.norm.bias.fill_(0.0)
    site.norm.weight[3] = 100.0
    linear = site.readers[0]
    expected = linear(norm_output(model, site.norm))

    def lost() -> float:
        x, weight = norm_output(model, site.norm), linear.weight.T
        rounded = fit_tensor(x, 8).rounded(x) @ fit_channels(weight, 8).rounded(weight)
        return float((rounded + linear.bias - expected).square().mean())

    before = lost()
    smooth(site, norm_output(model, site.norm).abs().amax(0))
    # The outlier's own error stays, 1/16 of all; that of the 15 other channels falls with s_j^2 / s_3^2, about 1/100.
    assert lost() < before / 5


def test_a_post_norm_model_is_refused():
    model = tiny_model("bert")
    site = norm_sites(model, {"input_ids": torch.tensor([[2, 7, 9, 3]])})[1]
    with pytest.raises(UnsupportedError, match="add as well as by linears"):
        smooth(site, torch.ones(site.norm.weight.shape[0]))


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ConfigError, match=f"alpha is {alpha:g}"):
        smoothing_scales(torch.ones(2), [torch.ones(2, 2)], alpha)
