"""What ONNX Runtime computes at every width, with and without a factorised token table."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession

from autocompress.compiler.graph import bf16_bits, random_weights, round_bf16
from autocompress.compiler.onnx_graph import CONTRIB, OPSET, OnnxGraph, write_onnx
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.shape import (
    BITS,
    EMBEDDING_BITS,
    WEIGHT_GROUPS,
    LayerShape,
    ModelShape,
    WeightGrid,
    by_block,
    nearest_embedding_bits,
)
from tests.compiler.numpy_graph import NumpyGraph, quantize_static, reference
from tests.compiler.test_engines_agree import spread_weights

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 50, (2, 9))
MASK = (np.arange(9) < np.array([[9], [4]])).astype(np.int64)
TOLERANCE = {32: 2e-5, 16: 2e-5, 8: 2e-2, 4: 1e-2, 3: 1e-2, 2: 1e-2}
"""Of the largest logit. A value on the edge of a step of its activations may fall to either side."""


def at(bits, **changes):
    layers = (LayerShape(2, 20, 70, *by_block(bits, bits)), LayerShape(3, 8, 33, *by_block(bits, bits)))
    shape = ModelShape("bert", 50, 12, 40, 40, layers, 3, embedding_bits=nearest_embedding_bits(bits))
    return replace(shape, **changes)


def check(shape, folder):
    weights = spread_weights(shape)
    run = open_artifact(Artifact(write_onnx(shape, weights, folder / "model.onnx"), "onnxruntime", 9), threads=1)
    bits = [width for layer in shape.layers for width in layer.bits]
    for row in range(2):
        one = slice(row, row + 1)
        expected = reference(shape, weights, IDS[one], MASK[one])
        tolerance = max(TOLERANCE[width] for width in bits) * np.abs(expected).max()
        np.testing.assert_allclose(run(of_text(IDS[one], MASK[one])), expected, atol=tolerance)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rank", [0, 20, 40])
def test_onnxruntime_computes_the_reference_at_every_width_and_rank(bits, rank, tmp_path):
    check(at(bits, embedding_rank=rank), tmp_path)


@pytest.mark.parametrize("bits", EMBEDDING_BITS)
@pytest.mark.parametrize("rank", [0, 20])
def test_a_token_table_of_any_width_gives_its_rows(bits, rank, tmp_path):
    check(at(32, embedding_bits=bits, embedding_rank=rank, embedding=36), tmp_path)


def test_widths_mix_within_a_model(tmp_path):
    layers = tuple(
        LayerShape(2, 20, 70, *by_block(attention, ffn))
        for attention, ffn in [(2, 16), (8, 2), (16, 4), (32, 8), (3, 3)]
    )
    check(at(2, layers=layers), tmp_path)


@pytest.mark.parametrize("activations", ["static", "smoothed"])
def test_activations_over_a_fixed_range_are_multiplied_as_integers(activations):
    """Exactly those of the definition: sums of integers, times f32(step * scale), plus the bias."""
    rng, inverse = np.random.default_rng(1), np.full(40, 1 / 0.04, np.float32)
    x, weight = rng.standard_normal((2, 5, 40)).astype(np.float32) * 3, rng.integers(-127, 128, (40, 6), dtype=np.int8)
    scale, step, zero = np.full(6, 25, np.float32), np.array([0.04], np.float32), np.array([101], np.uint8)
    bias = rng.integers(-9, 9, 6).astype(np.float32)
    parts = {"weight": weight, "scale": scale, "bias": bias, "step": step, "zero": zero, "inverse": inverse}
    graph = OnnxGraph({f"map.{part}": values for part, values in parts.items()})
    graph.linear("x", "map", 8, reads=activations)
    found = alone(graph, {"x": x})
    levels = quantize_static(x, step, 101, inverse if activations == "smoothed" else None)
    assert levels.min() == 0 and levels.max() == 255
    assert np.float32(0.04) * np.float32(25) == 1
    np.testing.assert_array_equal(found, (levels - 101) @ weight.astype(np.int64) + bias)


@pytest.mark.parametrize("grid", [WeightGrid(group, zeros) for group in WEIGHT_GROUPS for zeros in (False, True)])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("ends", [False, True], ids=["drawn", "ends"])
def test_products_in_groups_are_those_of_integers(bits, grid, ends):
    """Within what f32 sums of scaled groups leave; floats of activations would be off by a thousand times that."""
    rng, (inputs, outputs), half, stored = (
        np.random.default_rng(bits),
        (150, 6),
        2 ** (bits - 1),
        grid.at(bits, "token"),
    )
    x, dimensions = rng.standard_normal((2, 5, inputs)).astype(np.float32), (stored.count(inputs), outputs)
    weight = rng.integers(-half, half, (inputs, outputs), dtype=np.int8)
    if ends:
        weight, x = np.where(weight < 0, -half, half - 1).astype(np.int8), np.sign(x)
    parts = {"weight": weight, "scale": rng.uniform(0.5, 1, dimensions).astype(np.float32)}
    parts |= {"bias": np.zeros(outputs, np.float32)}
    if stored.zero_points:
        parts["zero_points"] = rng.integers(-half, half, dimensions, dtype=np.int8)
    weights = {f"map.{part}": values for part, values in parts.items()}
    graph = OnnxGraph(weights)
    graph.linear("x", "map", bits, reads="token" if bits == 8 else "dynamic", grid=stored)
    expected = NumpyGraph(weights, None, None).linear(x, "map", bits, grid=stored)
    np.testing.assert_allclose(alone(graph, {"x": x}), expected, atol=2e-6 * np.abs(expected).max())


def alone(graph, inputs):
    """What the last node of a graph gives."""
    values = [onnx.helper.make_tensor_value_info(name, 1, None) for name in (*inputs, graph.nodes[-1].output[0])]
    body = onnx.helper.make_graph(graph.nodes, "part", values[:-1], values[-1:], list(graph.initializers.values()))
    imports = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(CONTRIB, 1)]
    model = onnx.helper.make_model(body, opset_imports=imports, ir_version=10)
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def test_every_linear_map_of_a_width_is_stored_at_it(tmp_path):
    stored = {32: onnx.TensorProto.FLOAT, 16: onnx.TensorProto.BFLOAT16, 8: onnx.TensorProto.UINT8}
    for bits in BITS:
        model = onnx.load(write_onnx(at(bits), random_weights(at(bits)), tmp_path / f"{bits}.onnx"))
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        weight = tensors["layers.0.ffn_in.weight"]
        if bits in stored:
            assert weight.data_type == stored[bits]
        else:
            # 70 outputs, 40 inputs in two groups of 32; there is no product of 3 bits.
            assert list(weight.dims) == [70, 2, 32 * {3: 4}.get(bits, bits) // 8]
            (product,) = {node.op_type for node in model.graph.node if weight.name in node.input}
            assert product == "MatMulNBits"


def test_bfloat16_rounds_half_to_even_and_keeps_what_it_holds():
    # Seven bits behind the point: 1 + 2^-8 lies between 1 and 1 + 2^-7, 1 + 3 * 2^-8 between that and 1 + 2^-6.
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3, 0, 2**-130], np.float32)
    rounded = round_bf16(values)
    assert rounded.tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -3, 0, 2**-130]
    assert np.array_equal(round_bf16(rounded), rounded)
    assert bf16_bits(np.array([1.0, -2.0], np.float32)).tolist() == [0x3F80, 0xC000]
    many = RNG.standard_normal(10_000).astype(np.float32)
    assert np.abs(round_bf16(many) / many - 1).max() <= 2**-8
