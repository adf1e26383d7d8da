import pytest
import torch

from autocompress.compression.activations.attention_maps import AttentionMap, squared_error
from autocompress.compression.activations.attention_quantizers import ATTENTION_QUANTIZERS


def maps(seed):
    """Maps as a transformer's: heads that look at all alike, and heads that look at one place."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None]
    logits = sharpness * torch.randn(4, 64, 64, generator=generator)
    return [AttentionMap(torch.softmax(logits, -1), torch.randn(4, 64, 16, generator=generator))]


FITTED = {(name, bits): fit(maps(0), bits) for name, fit in ATTENTION_QUANTIZERS.items() for bits in (3, 4, 6)}


@pytest.mark.parametrize(("name", "bits"), FITTED, ids=str)
def test_every_quantizer_is_marked_as_simulated_and_its_codes_fit_into_its_bits(name, bits):
    quantizer, x = FITTED[name, bits], torch.linspace(0, 1, 10001)
    assert quantizer.simulated and quantizer.bits == bits
    codes = quantizer.quantize(x)
    assert (int(codes.min()), int(codes.max())) == (0, 2**bits - 1)
    assert torch.equal(codes, codes.round())
    steps = codes.diff()
    assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize(("name", "bits"), FITTED, ids=str)
def test_zero_stays_zero_and_rounding_twice_is_rounding_once(name, bits):
    quantizer, x = FITTED[name, bits], torch.rand(50, 50)
    once = quantizer.dequantize(quantizer.quantize(x))
    torch.testing.assert_close(quantizer.dequantize(quantizer.quantize(once)), once)
    assert float(quantizer.dequantize(quantizer.quantize(torch.zeros(())))) == 0.0


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_a_searched_base_is_no_worse_than_a_base_of_its_grid_on_what_it_was_fitted_to(bits):
    assert squared_error(FITTED["adalog", bits], maps(0)) <= squared_error(FITTED["log2", bits], maps(0))


def test_at_four_bits_the_tangent_loses_least_of_what_attention_hands_on_of_maps_it_has_not_seen():
    lost = {name: squared_error(FITTED[name, 4], maps(1)) for name in ATTENTION_QUANTIZERS}
    assert min(lost, key=lost.get) == "tanq"


def test_at_four_bits_of_the_maps_themselves_the_tangent_loses_least_and_a_finer_logarithm_less_than_a_coarse_one():
    seen, unseen = ([AttentionMap(each.probabilities) for each in maps(seed)] for seed in (0, 1))
    lost = {name: squared_error(fit(seen, 4), unseen) for name, fit in ATTENTION_QUANTIZERS.items()}
    assert lost["tanq"] < lost["adalog"] < lost["log_sqrt2"] < min(lost["log2"], lost["uniform"])


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_more_bits_lose_less(bits):
    for name in ("uniform", "adalog", "tanq"):
        assert squared_error(FITTED[name, bits], maps(1)) > squared_error(
            ATTENTION_QUANTIZERS[name](maps(0), bits + 1), maps(1)
        )
