import copy

import pytest
import torch
from torch import nn

from autocompress.compression.activations.affine import fit_channels, fit_tensor
from autocompress.compression.activations.folding import fold, fold_linear, reparameterize
from autocompress.compression.activations.mosf import SHARED, shared_mean, shared_median
from autocompress.compression.activations.norm_sites import NormSite, norm_sites
from autocompress.errors import UnsupportedError
from tests.compression.pre_norm import norm_output, pictures, tiny_vit
from tests.conftest import tiny_model


@torch.no_grad()
def logits(model):
    return model(**pictures()).logits


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
def test_a_reparameterized_model_computes_what_it_did_whatever_the_ranges_of_its_channels(shared):
    model = tiny_vit()
    expected = logits(model)
    for site in norm_sites(model, pictures(2)):
        channels = fit_channels(norm_output(model, site.norm), 4)
        assert channels.scale.max() > 100 * channels.scale.min()
        reparameterize(site, channels, shared(channels))
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_with_a_whole_zero_point_one_quantizer_gives_the_codes_of_one_a_channel(bits):
    model = tiny_vit()
    for site in norm_sites(model, pictures(2)):
        before = norm_output(model, site.norm)
        channels = fit_channels(before, bits)
        layer = reparameterize(site, channels, shared_median(channels))
        after = norm_output(model, site.norm)
        differ = layer.quantize(after) != channels.quantize(before)
        # Apart from ties, which f32 may break either way.
        fraction = (before / channels.scale).frac().abs()
        assert not (differ & ((fraction - 0.5).abs() > 1e-3)).any()
        assert differ.float().mean() < 1e-2


def quantized(model, site, quantizer):
    """Return what the readers give of quantized inputs."""
    x = quantizer.rounded(norm_output(model, site.norm))
    return torch.cat([linear(x) for linear in site.readers], -1)


@torch.no_grad()
def test_one_scale_for_a_layer_loses_what_one_a_channel_does_once_it_is_folded_and_much_more_before():
    model = tiny_vit()
    for index in range(len(norm_sites(model, pictures(1)))):
        site = norm_sites(model, pictures(1))[index]
        before = norm_output(model, site.norm)
        channels = fit_channels(before, 4)
        expected = torch.cat([linear(before) for linear in site.readers], -1)
        by_channel = (quantized(model, site, channels) - expected).square().mean()
        naive = (quantized(model, site, fit_tensor(before, 4)) - expected).square().mean()
        for shared, tolerance in ((shared_median, 1e-2), (shared_mean, 0.1)):
            other = copy.deepcopy(model)
            folded = norm_sites(other, pictures(1))[index]
            layer = reparameterize(folded, channels, shared(channels))
            error = (quantized(other, folded, layer) - expected).square().mean()
            assert float(error) == pytest.approx(float(by_channel), rel=tolerance), shared.__name__
        assert naive > 2 * by_channel


def test_the_shared_scale_only_stretches_the_readers_by_one_factor():
    weights = []
    for factor in (1.0, 3.0):
        model = tiny_vit()
        site = norm_sites(model, pictures(1))[0]
        channels = fit_channels(norm_output(model, site.norm), 4)
        shared = shared_median(channels)
        reparameterize(site, channels, type(shared)(shared.bits, factor * shared.scale, shared.zero))
        weights.append(site.readers[0].weight)
    torch.testing.assert_close(weights[0], 3.0 * weights[1])


def test_readers_without_a_bias_get_one():
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(4), nn.Linear(4, 3, bias=False)
    x, ratio, shift = torch.randn(10, 4), torch.tensor([0.1, 2.0, 5.0, 1.0]), torch.randn(4)
    expected, before = linear(norm(x)), norm(x)
    fold(NormSite("norm", norm, (linear,), ()), ratio, shift)
    torch.testing.assert_close(norm(x), before / ratio + shift)
    torch.testing.assert_close(linear(norm(x)), expected)


def test_a_norm_that_the_residual_reads_is_refused_and_left_as_it_was():
    model = tiny_model("bert")
    site = norm_sites(model, {"input_ids": torch.tensor([[2, 7, 9, 3]])})[0]
    before = site.norm.weight.clone()
    with pytest.raises(UnsupportedError, match="is read by dropout, add as well as by linears") as error:
        fold(site, torch.full((len(before),), 2.0))
    assert "pre-norm" in error.value.right and error.value.next_step
    assert torch.equal(site.norm.weight, before)


def test_a_norm_without_a_bias_takes_scales_and_no_zero_points():
    norm, linear, x = nn.RMSNorm(4), nn.Linear(4, 3), torch.randn(10, 4)
    site, expected = NormSite("norm", norm, (linear,), ()), linear(norm(x))
    fold(site, torch.tensor([0.1, 2.0, 5.0, 1.0]))
    torch.testing.assert_close(linear(norm(x)), expected)
    with pytest.raises(UnsupportedError, match="norm has no bias to fold into"):
        fold(site, torch.ones(4), torch.ones(4))
    bare = NormSite("bare", nn.LayerNorm(4, elementwise_affine=False), (linear,), ())
    with pytest.raises(UnsupportedError, match="bare has no weight to fold into"):
        fold(bare, torch.ones(4))


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_what_a_linear_gives_is_rescaled_behind_a_gate_and_the_next_makes_up_for_it(bias):
    torch.manual_seed(0)
    gate, before, reader = nn.Linear(5, 4), nn.Linear(5, 4, bias=bias), nn.Linear(4, 3)
    x, ratio = torch.randn(10, 5), torch.tensor([0.1, 2.0, 5.0, 1.0])
    given, expected = before(x), reader(gate(x).sigmoid() * before(x))
    fold_linear(before, reader, ratio)
    torch.testing.assert_close(before(x), given / ratio)
    torch.testing.assert_close(reader(gate(x).sigmoid() * before(x)), expected)


@torch.no_grad()
def test_inputs_that_are_made_of_the_same_output_share_its_scale():
    torch.manual_seed(0)
    before, reader, x = nn.Linear(5, 2), nn.Linear(4, 3), torch.randn(10, 5)
    owners = torch.tensor([1, 0, 0, 1])
    expected = reader(before(x)[:, owners])
    fold_linear(before, reader, torch.tensor([0.5, 3.0]), owners)
    torch.testing.assert_close(reader(before(x)[:, owners]), expected)


def test_a_linear_that_reads_another_number_of_channels_is_refused_and_nothing_changes():
    before, reader = nn.Linear(5, 2), nn.Linear(4, 3)
    weights = [linear.weight.clone() for linear in (before, reader)]
    with pytest.raises(UnsupportedError, match="reads 4 channels follows one of 2") as error:
        fold_linear(before, reader, torch.ones(2))
    assert "owners" in error.value.next_step
    assert all(torch.equal(linear.weight, was) for linear, was in zip((before, reader), weights, strict=True))
