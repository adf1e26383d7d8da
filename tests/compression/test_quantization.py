import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from autocompress.compiler.graph import round_bf16, weight_specs
from autocompress.compiler.onnx_graph import write_onnx
from autocompress.compression.method import Space
from autocompress.compression.methods import read_plan
from autocompress.compression.quantization import QuantizeStep, apply, reshape, suggest
from autocompress.compression.rounding.grids import grid_of, quantize_rows
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.errors import ConfigError
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of
from autocompress.models.quantized import (
    QuantizedLinear,
    quantize_activation_groups,
    quantize_activations,
)
from autocompress.plan import Chosen
from autocompress.shape import BITS, WeightGrid, by_block, nearest_embedding_bits
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model

EVERY = [*((bits, "dynamic") for bits in BITS), (8, "static"), (8, "smoothed"), (8, "token")]
GRIDS = [WeightGrid(), WeightGrid(64), WeightGrid(128, zero_points=True)]
WORDS = "bert.embeddings.word_embeddings.weight"


def test_sixteen_bit_products_are_those_of_floats():
    linear = nn.Linear(40, 6)
    module = QuantizedLinear(*quantize_rows(linear.weight.detach(), 16), linear.bias.detach(), 16)
    x = torch.randn(2, 3, 40)
    expected = x.numpy().astype(np.float64) @ round_bf16(linear.weight.detach().numpy()).T + module.bias.numpy()
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("bits", [4, 3, 2])
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


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("grid", [WeightGrid(64), WeightGrid(32, zero_points=True), WeightGrid(128, zero_points=True)])
def test_products_in_groups_of_any_size_are_integer_sums_less_zero_points(bits, grid):
    linear, stored = nn.Linear(150, 6), grid.at(bits, "token")
    found = grid_of(linear.weight.detach() + 0.05, bits, stored=stored)
    levels, zeros = found.levels(linear.weight.detach() + 0.05), found.zero_points
    module = QuantizedLinear(levels, found.scale, linear.bias.detach(), bits, None, stored.group, zeros)
    assert (module.grid, zeros is not None) == (stored, stored.zero_points)
    x = torch.randn(2, 3, 150)
    quantized, x_scale = (part.numpy() for part in quantize_activation_groups(x, grid.group))
    expected = np.zeros((2, 3, 6)) + module.bias.numpy()
    for group in range(stored.count(150)):
        part = slice(grid.group * group, grid.group * (group + 1))
        weight = levels.numpy()[:, part].astype(np.int64) - (zeros.numpy()[:, group, None] if stored.zero_points else 0)
        sums = quantized[..., part].astype(np.int64) @ weight.T
        expected += sums * x_scale[..., group, None].astype(np.float64) * found.scale.numpy()[:, group]
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def quantized(model, bits, activations="dynamic", grid=WeightGrid()):  # noqa: B008 - a frozen value
    step = QuantizeStep(*by_block((bits,) * 3, (bits,) * 3), nearest_embedding_bits(bits), activations=activations,
                        weight_group=grid.group, zero_points=grid.zero_points)  # fmt: skip
    before = adapter_of(model).shape(model)
    return reshape(before, step), apply(model, step, context_for(model))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("bits", "activations"), EVERY)
def test_shape_and_weights_of_a_student_are_those_that_the_compiler_asks_for(bits, activations, grid):
    foreseen, student = quantized(tiny_model("bert"), bits, activations, grid)
    adapter = adapter_of(student)
    assert adapter.shape(student) == foreseen
    weights, specs = adapter.weights(student), weight_specs(foreseen)
    assert {name: array.shape for name, array in weights.items()} == {n: spec.dimensions for n, spec in specs.items()}
    for name, spec in specs.items():
        integers = spec.dtype in ("i8", "i4", "i3", "i2")
        assert weights[name].dtype == (np.int8 if integers else np.uint8 if spec.dtype == "u8" else np.float32), name
        if spec.dtype == "bf16":
            assert np.array_equal(round_bf16(weights[name]), weights[name]), name


@pytest.mark.parametrize("rounding", ["optq", "aespa", "descent"])
def test_rounding_reads_the_batches_that_the_step_names_and_leaves_the_same_grid(rounding):
    model, asked = tiny_model("bert"), []
    context = replace(
        context_for(model), batches=lambda count, seed: asked.append((count, seed)) or batches(count, seed)
    )
    nearest = QuantizeStep(*by_block((4,) * 3, (8, 2, 3)), 8)
    student = apply(copy.deepcopy(model), replace(nearest, rounding=rounding, calibration_batches=3, seed=7), context)
    other = apply(copy.deepcopy(model), nearest, context)
    assert asked == [(3, 7)]
    ours, theirs = student.state_dict(), other.state_dict()
    scales = [name for name in ours if name.endswith("scale")]
    assert all(torch.equal(ours[name], theirs[name]) for name in scales)
    levels = [name for name in ours if ours[name].dtype == torch.int8 and "word" not in name]
    assert len(levels) == 18
    assert all(not torch.equal(ours[name], theirs[name]) for name in levels)
    assert torch.equal(ours[WORDS], theirs[WORDS])


def test_rounding_without_documents_is_refused():
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match="calibration_batches"):
        apply(model, QuantizeStep(*by_block((4,) * 3, (4,) * 3), 8, "optq", calibration_batches=0), context_for(model))


@pytest.mark.parametrize("activations", ["static", "smoothed"])
def test_ranges_without_documents_are_refused_before_anything_is_rounded(activations):
    model, step = tiny_model("bert"), QuantizeStep(*by_block((8,) * 3, (8,) * 3), 8, activations=activations)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    padding = replace(batches(1)[0], attention_mask=torch.zeros(4, 6, dtype=torch.int64))
    for none in ([], [padding]):
        with pytest.raises(ConfigError, match=activations):
            apply(model, step, replace(context_for(model), batches=lambda count, seed, none=none: none))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_ranges_of_a_model_that_gives_no_numbers_are_refused_before_anything_is_rounded(broken):
    model = tiny_model("bert")
    adapter_of(model).layers(model)[1].get("attention.self.value").bias.data[3] = broken
    with pytest.raises(ConfigError, match="no numbers"):
        apply(model, QuantizeStep(*by_block((8,) * 3, (8,) * 3), 8, activations="static"), context_for(model))
    assert isinstance(adapter_of(model).token_embedding(model), nn.Embedding)


def test_ranges_of_activations_that_overflow_are_refused():
    model = tiny_model("bert")
    weight = adapter_of(model).layers(model)[1].get("intermediate.dense").weight.data
    weight.mul_(2e38).mul_(2.0)
    assert weight.isfinite().all()
    with pytest.raises(ConfigError, match="no numbers"):
        apply(model, QuantizeStep(*by_block((8,) * 3, (8,) * 3), 8, activations="static"), context_for(model))


@pytest.mark.parametrize(("bits", "kept"), [(8, True), (4, False), (32, False)])
@pytest.mark.parametrize("activations", ["dynamic", "static", "smoothed"])
def test_steps_name_fixed_ranges_only_where_something_reads_them(activations, bits, kept):
    fixes = {"activations": (activations,), "ranges": "mse", "smoothing": 0.7, "rounding_batches": 5, "seed": 6}
    space = Space((3,), attention_bits=(bits,), ffn_bits=(4,), embedding_bits=(8,), **fixes)
    shape = adapter_of(tiny_model("bert")).shape(tiny_model("bert"))
    step, plain = suggest(Chosen({}), shape, space), QuantizeStep(*by_block((bits,) * 3, (4,) * 3), 8)
    if not kept or activations == "dynamic":
        assert step == plain
        return
    alpha = {"static": 0.5, "smoothed": 0.7}[activations]
    assert step == replace(plain, activations=activations, ranges="mse", smoothing=alpha, calibration_batches=5, seed=6)
    assert {layer.activations for layer in reshape(shape, step).layers} == {activations}


def test_layers_without_eight_bits_read_as_before_whatever_a_step_says():
    step = QuantizeStep(*by_block((8, 4, 16), (2, 8, 4)), 8, activations="static")
    layers = reshape(adapter_of(tiny_model("bert")).shape(tiny_model("bert")), step).layers
    assert [layer.activations for layer in layers] == ["static", "static", "dynamic"]
    assert [layer.activations_at(layer.attention_in_bits) for layer in layers] == ["static", "dynamic", "dynamic"]


@pytest.mark.parametrize(
    ("attention", "ffn", "kept"),
    [(8, 8, ("token", 64, False)), (4, 8, ("token", 64, True)), (4, 4, ("dynamic", 64, True)),
     (16, 32, ("dynamic", 32, False))],
)  # fmt: skip
def test_steps_name_groups_and_zero_points_only_where_weights_have_them(attention, ffn, kept):
    choices = {"activations": ("token",), "weight_group": (64,), "zero_points": (True,)}
    space = Space((3,), attention_bits=(attention,), ffn_bits=(ffn,), embedding_bits=(8,), **choices)
    shape = adapter_of(tiny_model("bert")).shape(tiny_model("bert"))
    step, (activations, group, zeros) = suggest(Chosen({}), shape, space), kept
    plain = QuantizeStep(*by_block((attention,) * 3, (ffn,) * 3), 8)
    assert step == replace(plain, activations=activations, weight_group=group, zero_points=zeros)
    assert step.fixing is None
    (layer,) = set(reshape(shape, step).layers)
    assert (layer.activations, layer.weight_group, layer.zero_points) == kept


def test_layers_without_groups_of_weights_say_nothing_of_any():
    step = QuantizeStep(*by_block((8, 4, 16), (32, 8, 16)), 8, weight_group=128, zero_points=True)
    layers = reshape(adapter_of(tiny_model("bert")).shape(tiny_model("bert")), step).layers
    assert [(layer.weight_group, layer.zero_points) for layer in layers] == [(32, False), (128, True), (32, False)]


def test_plans_of_one_width_a_block_are_refused_and_not_misread():
    old = {"method": "quantize", "attention_bits": [8], "ffn_bits": [4], "embedding_bits": 8}
    with pytest.raises(ConfigError, match="attention_in_bits"):
        read_plan([old])


def test_old_plans_read_on_as_rounding_to_nearest():
    widths = {"attention_in_bits": [8], "attention_out_bits": [8], "ffn_in_bits": [4], "ffn_out_bits": [4]}
    old = {"method": "quantize", **widths, "embedding_bits": 8}
    (step,) = read_plan([old]).steps
    assert step == QuantizeStep(*by_block((8,), (4,)), 8, rounding="nearest")


@pytest.mark.parametrize(
    "bits, rounding, kept", [(4, "optq", "optq"), (4, "nearest", "nearest"), (16, "optq", "nearest")]
)
def test_steps_that_read_no_documents_do_not_name_any(bits, rounding, kept):
    space = Space((3,), attention_bits=(bits,), ffn_bits=(bits,), rounding=(rounding,), rounding_batches=5, seed=6)
    step = suggest(
        Chosen({}), adapter_of(tiny_model("bert")).shape(tiny_model("bert")), replace(space, embedding_bits=(8,))
    )
    plain = QuantizeStep(*by_block((bits,) * 3, (bits,) * 3), 8)
    assert step == (plain if kept == "nearest" else replace(plain, rounding="optq", calibration_batches=5, seed=6))


@pytest.mark.parametrize("grid", GRIDS[::2], ids=str)
@pytest.mark.parametrize(("bits", "activations"), EVERY)
def test_a_student_reads_back_from_its_file(bits, activations, grid):
    _, student = quantized(tiny_model("bert"), bits, activations, grid)
    _, other = quantized(tiny_model("bert", seed=1), bits, activations, grid)
    other.load_state_dict(load(save(student.state_dict())))
    ids = torch.tensor([[2, 7, 9, 11, 5, 3]])
    with torch.no_grad():
        assert torch.equal(other(input_ids=ids).logits, student(input_ids=ids).logits)


@pytest.mark.parametrize("grid", GRIDS[::2], ids=str)
@pytest.mark.parametrize(("bits", "activations"), [each for each in EVERY if each[0] != 32])
def test_the_engine_computes_what_the_student_computes(model, bits, activations, grid, tmp_path):
    quantized(model, bits, activations, grid)
    adapter = adapter_of(model)
    path = write_onnx(adapter.shape(model), adapter.weights(model), tmp_path / "model.onnx")
    ids = np.array([[2, 7, 9, 11, 5, 3]])
    mask = np.ones_like(ids)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    run = open_artifact(Artifact(path, "onnxruntime", 6), threads=1)
    spread = np.ptp(expected)
    np.testing.assert_allclose(run(of_text(ids, mask)), expected, atol={16: 1e-4, 8: 2e-2}.get(bits, 1e-2) * spread)
