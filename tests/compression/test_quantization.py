import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from autocompress.compiler.graph import round_bf16, weight_specs
from autocompress.compiler.onnx_graph import write_onnx
from autocompress.compression.quantization import QuantizeStep, apply, quantize_rows, reshape
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.models.load import adapter_of
from autocompress.models.quantized import (
    QuantizedLinear,
    expand_groups,
    quantize_activation_groups,
    quantize_activations,
)
from autocompress.shape import BITS, nearest_embedding_bits
from tests.compression.training_data import context_for
from tests.conftest import tiny_model


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


@pytest.mark.parametrize("sign", [1, -1])
def test_two_bit_scales_are_nearly_the_best_there_are(sign):
    groups = torch.cat([torch.randn(40, 32), torch.distributions.StudentT(3.0).sample((40, 32)), torch.rand(40, 32)])
    levels, scale = quantize_rows(sign * groups, 2)
    assert (int(levels.min()), int(levels.max()), tuple(scale.shape)) == (-2, 1, (120, 1))
    found = (expand_groups(levels, scale) - sign * groups).square().sum(1).numpy()
    values = sign * groups.numpy().astype(np.float64)
    every = np.abs(values).max() * np.linspace(-1.2, 1.2, 4000)[:, None, None]  # an even number of points: none is zero
    errors = ((np.clip(np.rint(values / every), -2, 1) * every - values) ** 2).sum(-1).min(0)
    assert found.sum() < 1.01 * errors.sum()


def test_four_levels_hold_what_is_made_of_them():
    levels = torch.tensor([[-2, -1, 0, 1] * 8, [1, -2, 1, 0] * 8, [-1, 1, 0, 0] * 8, [1, 0, 0, 0] * 8])
    weight = levels * torch.tensor([[0.3], [-0.7], [2.0], [5.0]])
    found, scale = quantize_rows(weight, 2)
    np.testing.assert_allclose(expand_groups(found, scale).numpy(), weight.numpy(), rtol=1e-6)


def test_sixteen_bits_round_as_the_compiler_rounds():
    weight = torch.cat([torch.randn(4, 50), 1 + torch.arange(50)[None] * 2.0**-9])
    values, scale = quantize_rows(weight, 16)
    assert (values.dtype, scale) == (torch.bfloat16, None)
    np.testing.assert_array_equal(values.float().numpy(), round_bf16(weight.numpy()))


def test_sixteen_bit_products_are_those_of_floats():
    linear = nn.Linear(40, 6)
    module = QuantizedLinear(*quantize_rows(linear.weight.detach(), 16), linear.bias.detach(), 16)
    x = torch.randn(2, 3, 40)
    expected = x.numpy().astype(np.float64) @ round_bf16(linear.weight.detach().numpy()).T + module.bias.numpy()
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_stays_zero():
    for bits in (8, 4, 2):
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


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("inputs", [20, 32, 70])
def test_products_in_groups_are_integer_sums(bits, inputs):
    linear = nn.Linear(inputs, 6)
    levels, scale = quantize_rows(linear.weight.detach(), bits)
    module = QuantizedLinear(levels, scale, linear.bias.detach(), bits)
    x = torch.randn(2, 3, inputs)
    quantized, x_scale = (part.numpy() for part in quantize_activation_groups(x))
    expected = np.zeros((2, 3, 6)) + module.bias.numpy()
    for group in range(-(-inputs // 32)):
        part = slice(32 * group, 32 * group + 32)
        sums = quantized[..., part].astype(np.int64) @ levels.numpy()[:, part].astype(np.int64).T
        expected += sums * x_scale[..., group, None].astype(np.float64) * scale.numpy()[:, group]
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def quantized(model, bits):
    step = QuantizeStep((bits,) * 3, (bits,) * 3, nearest_embedding_bits(bits))
    before = adapter_of(model).shape(model)
    return reshape(before, step), apply(model, step, context_for(model))


@pytest.mark.parametrize("bits", BITS)
def test_shape_and_weights_of_a_student_are_those_that_the_compiler_asks_for(bits):
    foreseen, student = quantized(tiny_model("bert"), bits)
    adapter = adapter_of(student)
    assert adapter.shape(student) == foreseen
    weights, specs = adapter.weights(student), weight_specs(foreseen)
    assert {name: array.shape for name, array in weights.items()} == {n: spec.dimensions for n, spec in specs.items()}
    for name, spec in specs.items():
        integers = spec.dtype in ("i8", "i4", "i2")
        assert weights[name].dtype == (np.int8 if integers else np.float32), name
        if spec.dtype == "bf16":
            assert np.array_equal(round_bf16(weights[name]), weights[name]), name


@pytest.mark.parametrize("bits", BITS)
def test_a_student_reads_back_from_its_file(bits):
    _, student = quantized(tiny_model("bert"), bits)
    _, other = quantized(tiny_model("bert", seed=1), bits)
    other.load_state_dict(load(save(student.state_dict())))
    ids = torch.tensor([[2, 7, 9, 11, 5, 3]])
    with torch.no_grad():
        assert torch.equal(other(input_ids=ids).logits, student(input_ids=ids).logits)


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
def test_the_engine_computes_what_the_student_computes(model, bits, tmp_path):
    quantized(model, bits)
    adapter = adapter_of(model)
    path = write_onnx(adapter.shape(model), adapter.weights(model), tmp_path / "model.onnx")
    ids = np.array([[2, 7, 9, 11, 5, 3]])
    mask = np.ones_like(ids)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    run = open_artifact(Artifact(path, "onnxruntime", 6), threads=1)
    spread = np.ptp(expected)
    np.testing.assert_allclose(run(ids, mask), expected, atol={16: 1e-4, 8: 2e-2, 4: 1e-2, 2: 1e-2}[bits] * spread)
