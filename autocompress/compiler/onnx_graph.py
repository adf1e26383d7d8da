"""Write an encoder as an ONNX model whose operators ONNX Runtime's CPU provider runs as fused kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.compiler.graph import Activation, Array, Weights, bf16_bits, emit
from autocompress.engines import stored_bits
from autocompress.feeds import IDS, MASK, PIXELS, feeds_of
from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits, ModelShape, Pixels, WeightGrid

OPSET = 21
CONTRIB = "com.microsoft"
SIGN = 128
"""What is added to int8 levels that are stored as uint8."""


class OnnxGraph:
    """Collects nodes and initializers; values are tensor names. Batch and tokens stay dynamic.

    Args:
        weights: Of the model.
        padded: Whether ``mask`` says that some tokens are padding.
    """

    def __init__(self, weights: Weights, *, padded: bool = True) -> None:
        self.weights = weights
        self.padded = padded
        self.mask = "mask"
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def _node(
        self, op: str, inputs: Sequence[str], *, outputs: int = 1, domain: str = "", **attributes: object
    ) -> tuple[str, ...]:
        stem = f"{op}_{len(self.nodes)}"
        names = tuple(f"{stem}:{index}" for index in range(outputs))
        self.nodes.append(helper.make_node(op, inputs, names, name=stem, domain=domain, **attributes))
        return names

    def _constant(self, name: str, values: Array) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self.weights[name])

    def _integers(self, *values: int) -> str:
        return self._constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def _integer(self, value: int) -> str:
        return self._constant(f"integer_{value}", np.array(value, np.int64))

    def _number(self, value: float) -> str:
        return self._constant(f"number_{value:g}", np.array(value, np.float32))

    def _raw(self, name: str, dtype: int, stored: bytes) -> str:
        """Return the weight ``name`` in a type that numpy lacks, as the bytes ``stored``."""
        self.initializers[name] = helper.make_tensor(name, dtype, self.weights[name].shape, stored, raw=True)
        return name

    def _bf16(self, name: str) -> str:
        return self._raw(name, TensorProto.BFLOAT16, bf16_bits(self.weights[name]).tobytes())

    def _float(self, x: str) -> str:
        return self._node("Cast", [x], to=TensorProto.FLOAT)[0]

    def lookup(self, name: str, bits: EmbeddingBits) -> str:
        """See ``Graph.lookup``."""
        word = f"{name}.word"
        if bits == 4:
            table = self._raw(word, TensorProto.INT4, _pack_int4(self.weights[word]))
            inputs = [table, IDS, self._weight(f"{name}.scale")]
            attributes = {"block_size": WEIGHT_GROUP, "gather_axis": 0, "quantize_axis": 1}
            return self._node("GatherBlockQuantized", inputs, domain=CONTRIB, **attributes)[0]
        (rows,) = self._node("Gather", [self._bf16(word) if bits == 16 else self._weight(word), IDS])
        if bits == 32:
            return rows
        rows = self._float(rows)
        if bits == 16:
            return rows
        (scale,) = self._node("Gather", [self._weight(f"{name}.scale"), IDS])
        return self._node("Mul", [rows, scale])[0]

    def positions(self, x: str, name: str) -> str:
        """See ``Graph.positions``."""
        (tokens,) = self._node("Shape", [IDS], start=1, end=2)
        (rows,) = self._node("Slice", [self._weight(f"{name}.position"), self._integers(0), tokens])
        return self.add(x, rows)

    def patches(self, pixels: Pixels) -> str:
        """See ``Graph.patches``."""
        rows, columns, patch = pixels.rows, pixels.columns, pixels.patch
        x = PIXELS
        if (pixels.height, pixels.width) != (rows * patch, columns * patch):
            ends = self._integers(rows * patch, columns * patch)
            (x,) = self._node("Slice", [x, self._integers(0, 0), ends, self._integers(2, 3)])
        (cut,) = self._node("Reshape", [x, self._integers(0, pixels.channels, rows, patch, columns, patch)])
        (cut,) = self._node("Transpose", [cut], perm=[0, 2, 4, 1, 3, 5])
        return self._node("Reshape", [cut, self._integers(0, pixels.patches, pixels.values)])[0]

    def behind_learned(self, x: str, name: str, learned: int) -> str:
        """See ``Graph.behind_learned``."""
        (padded,) = self._node("Pad", [x, self._integers(0, learned, 0, 0, 0, 0)])
        return self.add(padded, self._weight(f"{name}.position"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """See ``Graph.norm``."""
        inputs = [x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        return self._node("LayerNormalization", inputs, axis=-1, epsilon=epsilon)[0]

    def sum_and_norm(self, x: str, y: str, name: str, epsilon: float) -> tuple[str, str]:
        """See ``Graph.sum_and_norm``; ONNX Runtime makes one operation of the two."""
        total = self.add(x, y)
        return total, self.norm(total, name, epsilon)

    def linear(
        self,
        x: str,
        name: str,
        bits: Bits,
        activation: Activation | None = None,
        *,
        reads: Activations = "dynamic",
        grid: WeightGrid | None = None,
    ) -> str:
        """See ``Graph.linear``."""
        if grid is None and reads != "dynamic":
            y = self._static_int8(x, name, reads)
        else:
            product = self._product(x, name, bits) if grid is None else self._product_groups(x, name, bits, grid)
            (y,) = self._node("Add", [product, self._weight(f"{name}.bias")])
        if activation is None:
            return y
        return self._node({"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh"}[activation], [y])[0]

    def _product(self, x: str, name: str, bits: Bits) -> str:
        weight = f"{name}.weight"
        if bits == 32:
            return self._node("MatMul", [x, self._weight(weight)])[0]
        if bits == 16:
            # The CPU provider has no products of bfloat16. It casts once, when it loads, so that the file is half as
            # large and the memory and the time are those of f32.
            return self._node("MatMul", [x, self._float(self._bf16(weight))])[0]
        return self._product_int8(x, name)

    def _product_int8(self, x: str, name: str) -> str:
        quantized, scale, zero = self._node("DynamicQuantizeLinear", [x], outputs=3)
        weight, weight_zero = self._unsigned(f"{name}.weight")
        (sums,) = self._node("MatMulInteger", [quantized, weight, zero, weight_zero])
        (scale,) = self._node("Mul", [scale, self._weight(f"{name}.scale")])
        return self._node("Mul", [self._float(sums), scale])[0]

    def _unsigned(self, weight: str) -> tuple[str, str]:
        """Return a weight of int8 levels as uint8, and the level that stands for 0.

        Where x86 has no VNNI, ONNX Runtime 1.32 adds pairs of products of uint8 and int8 up in int16, which saturates;
        uint8 and uint8 it widens first, which is exact everywhere.
        """
        levels = self.weights[weight].astype(np.int16) + SIGN
        return self._constant(weight, levels.astype(np.uint8)), self._constant("sign", np.array(SIGN, np.uint8))

    def _static_int8(self, x: str, name: str, reads: Activations) -> str:
        """Return products with activations whose range is fixed, and the bias.

        Channels are scaled by a ``Mul``: with one scale a channel ONNX Runtime 1.32 quantizes element by element, ten
        times slower. The product is what it makes of other ways to write this where it finds the pattern.
        """
        zero = self._constant(f"{name}.zero", self.weights[f"{name}.zero"].reshape(()))
        step = self._constant(f"{name}.step", self.weights[f"{name}.step"].reshape(()))
        if reads == "smoothed":
            (x,) = self._node("Mul", [x, self._weight(f"{name}.inverse")])
        unit = self._number(1.0) if reads == "smoothed" else step
        (levels,) = self._node("QuantizeLinear", [x, unit, zero])
        weight, weight_zero = self._unsigned(f"{name}.weight")
        scale, bias = (self._weight(f"{name}.{part}") for part in ("scale", "bias"))
        inputs = [levels, weight, step, scale, zero, weight_zero, bias]
        return self._node("MatMulIntegerToFloat", inputs, domain=CONTRIB)[0]

    def _product_groups(self, x: str, name: str, bits: Bits, grid: WeightGrid) -> str:
        """Multiply activations that are quantized to int8 by weights in groups: what accuracy level 4 asks for.

        ONNX Runtime 1.32 does 8, 4 and 2 bits as integers with AVX-512, 2 in twice the time of 4, in groups of 32 to
        128. Where it has no kernel for a processor it makes floats of the weights at every run and leaves activations
        as they are. It refuses 3 bits, whose levels and zero points are stored as those of 4.
        """
        bits = stored_bits("onnxruntime", bits)
        inputs, outputs = self.weights[f"{name}.weight"].shape
        levels = _pack_rows(self.weights[f"{name}.weight"], bits, grid.group)
        packed = self._constant(f"{name}.weight", levels.reshape(outputs, grid.count(inputs), -1))
        scale = self._constant(f"{name}.scale", self.weights[f"{name}.scale"].T.reshape(-1))
        operands = [x, packed, scale]
        if grid.zero_points:
            zeros = _pack_rows(self.weights[f"{name}.zero_points"], bits)
            operands.append(self._constant(f"{name}.zero_points", zeros.reshape(-1)))
        attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": grid.group, "accuracy_level": 4}
        return self._node("MatMulNBits", operands, domain=CONTRIB, **attributes)[0]

    def attention(self, qkv: str, heads: int, head_width: int) -> str:
        """See ``Graph.attention``."""
        width = self._integers(heads * head_width, heads * head_width, heads * head_width)
        q, k, v = self._node("Split", [qkv, width], outputs=3, axis=-1)
        attributes: dict[str, Any] = {"num_heads": heads, "mask_filter_value": -3.0e38}
        mask = ["", self.mask] if self.padded else []
        return self._node("MultiHeadAttention", [q, k, v, *mask], domain=CONTRIB, **attributes)[0]

    def attention_received(self, qkv: str, heads: int, head_width: int) -> tuple[str, str]:
        """See ``Graph.attention_received``; the fused operator shows nobody its shares, so this is written out."""
        real = self._float(self.mask)
        (padding,) = self._node("Sub", [real, self._number(1.0)])
        (hidden,) = self._node("Mul", [padding, self._number(3.0e38)])
        (hidden,) = self._node("Unsqueeze", [hidden, self._integers(1, 2)])
        (split,) = self._node("Reshape", [qkv, self._integers(0, 0, 3, heads, head_width)])
        (split,) = self._node("Transpose", [split], perm=[2, 0, 3, 1, 4])
        q, k, v = (self._node("Gather", [split, self._integer(index)], axis=0)[0] for index in range(3))
        (q,) = self._node("Mul", [q, self._number(head_width**-0.5)])
        (k,) = self._node("Transpose", [k], perm=[0, 1, 3, 2])
        (scores,) = self._node("MatMul", [q, k])
        (shares,) = self._node("Softmax", [self.add(scores, hidden)], axis=-1)
        (mixed,) = self._node("Transpose", [self._node("MatMul", [shares, v])[0]], perm=[0, 2, 1, 3])
        (mixed,) = self._node("Reshape", [mixed, self._integers(0, 0, heads * head_width)])
        (looks,) = self._node("ReduceSum", [shares, self._integers(1)], keepdims=0)
        (looks,) = self._node("Mul", [looks, self._others()])
        (row,) = self._node("Unsqueeze", [real, self._integers(1)])
        (received,) = self._node("Squeeze", [self._node("MatMul", [row, looks])[0], self._integers(1)])
        return mixed, received

    def _others(self) -> str:
        """Return (tokens x tokens) 0 on the diagonal and 1 elsewhere."""
        (tokens,) = self._node("Shape", [self.mask], start=1, end=2)
        (square,) = self._node("Concat", [tokens, tokens], axis=0)
        (zeros,) = self._node("ConstantOfShape", [square])
        return self._node("Sub", [self._number(1.0), self._node("EyeLike", [zeros])[0]])[0]

    def most_significant(self, received: str, most: int) -> str:
        """See ``Graph.most_significant``."""
        (real,) = self._node("Cast", [self.mask], to=TensorProto.BOOL)
        (ranked,) = self._node("Where", [real, received, self._number(-1.0)])
        (rest,) = self._node("Slice", [ranked, self._integers(1), self._integers(2**31 - 1), self._integers(1)])
        (first,) = self._node("Slice", [ranked, self._integers(0), self._integers(1), self._integers(1)])
        (first,) = self._node("Add", [first, self._number(1.0e30)])
        (ranked,) = self._node("Concat", [first, rest], axis=1)
        (tokens,) = self._node("Shape", [self.mask], start=1, end=2)
        (count,) = self._node("Min", [tokens, self._integers(most)])
        _, places = self._node("TopK", [ranked, count], outputs=2, axis=-1)
        (self.mask,) = self._node("GatherElements", [self.mask, places], axis=1)
        return places

    def take(self, x: str, places: str) -> str:
        """See ``Graph.take``."""
        (places,) = self._node("Unsqueeze", [places, self._integers(2)])
        return self._node("GatherND", [x, places], batch_dims=1)[0]

    def add(self, x: str, y: str) -> str:
        """See ``Graph.add``."""
        return self._node("Add", [x, y])[0]

    def first_token(self, x: str) -> str:
        """See ``Graph.first_token``."""
        return self._node("Gather", [x, self._integer(0)], axis=1)[0]

    def first_and_mean(self, x: str, learned: int) -> str:
        """See ``Graph.first_and_mean``."""
        (rest,) = self._node("Slice", [x, self._integers(learned), self._integers(2**31 - 1), self._integers(1)])
        (mean,) = self._node("ReduceMean", [rest, self._integers(1)], keepdims=0)
        return self._node("Concat", [self.first_token(x), mean], axis=-1)[0]

    def read_mask(self) -> None:
        """Let the mask be that of the text."""
        self.nodes.append(helper.make_node("Cast", [MASK], [self.mask], name="mask", to=TensorProto.INT32))

    def hide_no_token(self, tokens: int) -> None:
        """Let the mask be one that hides none of an image's tokens."""
        (batch,) = self._node("Shape", [PIXELS], start=0, end=1)
        (sizes,) = self._node("Concat", [batch, self._integers(tokens)], axis=0)
        ones = self._constant("every_token", np.ones((1, 1), np.int32))
        self.nodes.append(helper.make_node("Expand", [ones, sizes], [self.mask], name="mask"))


_TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


def write_onnx(shape: ModelShape, weights: Weights, path: Path) -> Path:
    """Write an ONNX model; its inputs are ``feeds.feeds_of`` the shape, its output ``logits`` (batch x classes)."""
    graph = OnnxGraph(weights, padded=shape.pixels is None)
    if shape.pixels is None:
        graph.read_mask()
    else:
        graph.hide_no_token(shape.positions)
    inputs = [
        helper.make_tensor_value_info(feed.name, _TYPES[feed.dtype], feed.dimensions) for feed in feeds_of(shape.pixels)
    ]
    logits = emit(graph, shape)
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", shape.classes])
    body = helper.make_graph(graph.nodes, "encoder", inputs, [output], list(graph.initializers.values()))
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(body, opset_imports=imports, ir_version=10, producer_name="autocompress")
    path.write_bytes(model.SerializeToString())
    return path


def _pack_int4(values: Array) -> bytes:
    """Pack int8 values -8..7 two to a byte, low nibble first, in row-major order."""
    flat = (values.reshape(-1).astype(np.int16) & 0xF).astype(np.uint8)
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return bytes((flat[0::2] | (flat[1::2] << 4)).tobytes())


def _pack_rows(values: Array, bits: Bits, multiple: int = 1) -> Array:
    """Pack (inputs x outputs) int8 levels as MatMulNBits reads them, first level lowest, each plus half its range.

    Returns:
        (outputs x bytes of the inputs, filled up to a multiple and to whole bytes) uint8.
    """
    (inputs, outputs), zero, together = values.shape, 1 << (bits - 1), 8 // bits
    padded = np.full((outputs, inputs + -inputs % max(multiple, together)), zero, np.uint8)
    padded[:, :inputs] = (values.T.astype(np.int16) + zero).astype(np.uint8)
    shifted = padded.reshape(outputs, -1, together) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.ascontiguousarray(np.bitwise_or.reduce(shifted, axis=-1))
