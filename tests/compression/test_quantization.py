import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compiler.onnx_graph import write_onnx
from autocompress.compression.quantization import QuantizeStep, apply, quantize_rows
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.models.load import adapter_of
from autocompress.models.quantized import (
    QuantizedLinear,
    expand_groups,
    quantize_activation_groups,
    quantize_activations,
)
from tests.compression.training_data import context_for


def test_eight_bit_rounding_is_within_half_a_level():
    weight = torch.randn(16, 48)
    levels, scale = quantize_rows(weight, 8)
    assert levels.dtype == torch.int8
    assert ((levels * scale[:, None] - weight).abs() <= scale[:, None] / 2 + 1e-7).all()


def test_four_bit_levels_use_the_whole_range_and_little_is_lost():
    weight = torch.randn(16, 70)
    levels, scale = quantize_rows(weight, 4)
    assert (int(levels.min()), levels.max() <= 7, tuple(scale.shape)) == (-8, True, (16, 3))
    error = (expand_groups(levels, scale) - weight).square().mean() / weight.square().mean()
    uniform = (weight.abs().amax() / 7) ** 2 / 12  # the error of one scale for all, symmetric -7..7
    assert error < uniform


def test_a_row_of_zeros_stays_zero():
    for bits in (8, 4):
        levels, scale = quantize_rows(torch.zeros(2, 32), bits)
        assert int(levels.abs().max()) == 0
        assert torch.isfinite(scale).all()


def test_activations_are_quantized_as_onnx_has_it():
    x = torch.tensor([[-1.0, 0.0, 0.5, 3.0]])
    levels, scale = quantize_activations(x)
    expected_scale = 4.0 / 255
    zero = np.rint(1.0 / expected_scale)
    expected = np.clip(np.rint(x.numpy() / expected_scale) + zero, 0, 255) - zero
    np.testing.assert_allclose(scale.numpy(), [[expected_scale]], rtol=1e-6)
    np.testing.assert_array_equal(levels.numpy(), expected)


def test_the_range_of_one_sequence_does_not_reach_another():
    x = torch.randn(2, 5, 8)
    x[1] *= 100
    alone, _ = quantize_activations(x[:1])
    together, _ = quantize_activations(x)
    assert torch.equal(alone[0], together[0])


def test_eight_bit_products_are_integer_sums():
    linear = nn.Linear(40, 6)
    levels, scale = quantize_rows(linear.weight.detach(), 8)
    module = QuantizedLinear(levels, scale, linear.bias.detach(), 8)
    x = torch.randn(1, 3, 40)
    quantized, x_scale = quantize_activations(x)
    sums = quantized.numpy().astype(np.int64) @ levels.numpy().astype(np.int64).T
    expected = sums * x_scale.numpy().astype(np.float64) * scale.numpy() + module.bias.numpy()
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_activations_of_a_group_fill_its_own_range_and_half_levels_round_to_even():
    x = torch.zeros(1, 2, 40)
    x[0, 0, :3], x[0, 0, 32:35] = torch.tensor([127.0, 0.5, -1.5]), torch.tensor([-2.54, 0.01, 1.0])
    levels, scale = quantize_activation_groups(x)
    assert (levels.shape, scale.shape) == ((1, 2, 40), (1, 2, 2))
    assert levels[0, 0, :3].tolist() == [127, 0, -2]
    assert levels[0, 0, 32:35].tolist() == [-127, np.rint(0.01 / 0.02), np.rint(1 / 0.02)]
    np.testing.assert_allclose(scale[0].numpy(), [[1, 2.54 / 127], [0, 0]], rtol=1e-6)
    assert not levels[0, 1].any()


@pytest.mark.parametrize("inputs", [20, 32, 70])
def test_four_bit_products_are_integer_sums_of_groups(inputs):
    linear = nn.Linear(inputs, 6)
    levels, scale = quantize_rows(linear.weight.detach(), 4)
    module = QuantizedLinear(levels, scale, linear.bias.detach(), 4)
    x = torch.randn(2, 3, inputs)
    quantized, x_scale = (part.numpy() for part in quantize_activation_groups(x))
    expected = np.zeros((2, 3, 6)) + module.bias.numpy()
    for group in range(-(-inputs // 32)):
        part = slice(32 * group, 32 * group + 32)
        sums = quantized[..., part].astype(np.int64) @ levels.numpy()[:, part].astype(np.int64).T
        expected += sums * x_scale[..., group, None].astype(np.float64) * scale.numpy()[:, group]
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_engine_computes_what_the_student_computes(model, bits, tmp_path):
    apply(model, QuantizeStep((bits,) * 3, (bits,) * 3, bits), context_for(model))
    adapter = adapter_of(model)
    path = write_onnx(adapter.shape(model), adapter.weights(model), tmp_path / "model.onnx")
    ids = np.array([[2, 7, 9, 11, 5, 3]])
    mask = np.ones_like(ids)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    run = open_artifact(Artifact(path, "onnxruntime", 6), threads=1)
    spread = np.ptp(expected)
    np.testing.assert_allclose(run(ids, mask), expected, atol=(1e-2 if bits == 4 else 2e-2) * spread)
