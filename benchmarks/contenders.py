"""One matrix product, ready to run, of each engine: what ``benchmarks.kernels`` times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
import tvm
from onnx import helper, numpy_helper

from autocompress.compiler.graph import Array, bf16_bits, round_bf16
from autocompress.compiler.machine import Machine
from autocompress.compiler.onnx_graph import SIGN
from autocompress.compiler.packing import column_sums, dot_panels, grouped_panels, half_panels, panels, row_panels
from autocompress.compiler.relax_graph import kernel_options
from autocompress.compiler.schedules.gemm_f16 import gemm_f16
from autocompress.compiler.schedules.gemm_f32 import gemm_f32
from autocompress.compiler.schedules.gemm_grouped import gemm_grouped
from autocompress.compiler.schedules.gemm_i8 import gemm_i8
from autocompress.compiler.schedules.vectors import Kernel
from autocompress.compiler.target import Target
from autocompress.shape import WEIGHT_GROUP, WeightGrid

SAMPLE_S = 0.003
"""What one sample is to take at least."""


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        time_s: Runs it so many times and returns the seconds of one run.
        operations: Of one run: multiplications and additions, or bytes.
        result: Of the last run.
    """

    time_s: Callable[[int], float]
    operations: int
    result: Callable[[], Array]

    def sized(self) -> int:
        """Return how many runs make a sample."""
        self.time_s(1)
        return max(1, round(SAMPLE_S / self.time_s(3)))


@dataclass(frozen=True)
class Product:
    """x (rows x depth) times weights (depth x columns), as floats and as integers of 8 bits and fewer."""

    rows: int
    columns: int
    depth: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.columns * self.depth

    def floats(self) -> tuple[Array, Array]:
        """Return x and the weights."""
        rng = np.random.default_rng(0)
        return (
            rng.standard_normal((self.rows, self.depth), np.float32),
            rng.standard_normal((self.depth, self.columns), np.float32),
        )

    def integers(self, bits: int) -> tuple[Array, Array]:
        """Return x of 0 to 255, and weights of ``bits`` with both extremes."""
        rng, most = np.random.default_rng(0), 2 ** (bits - 1)
        x = rng.integers(0, 256, (self.rows, self.depth)).astype(np.uint8)
        return x, rng.integers(-most, most, (self.depth, self.columns)).astype(np.int8)


def of_kernel(
    written: Kernel, inputs: Sequence[Array], dimensions: tuple[int, ...], dtype: str, *, operations: int
) -> Contender:
    """Compile a kernel named ``kernel`` for this machine."""
    with kernel_options():
        library = tvm.compile(tvm.IRModule({"kernel": written}), target=Target.host().llvm())
    result = tvm.runtime.tensor(np.zeros(dimensions, dtype))
    arguments = [*(tvm.runtime.tensor(np.ascontiguousarray(value)) for value in inputs), result]

    def time_s(number: int) -> float:
        return float(library.mod.time_evaluator("kernel", tvm.cpu(), number=number, repeat=1)(*arguments).mean)

    return Contender(time_s, operations, result.numpy)


def of_call(call: Callable[[], object], result: Callable[[], Array], operations: int) -> Contender:
    """Wrap a Python function; its call is timed with it."""

    def time_s(number: int) -> float:
        start_s = perf_counter()
        for _ in range(number):
            call()
        return (perf_counter() - start_s) / number

    return Contender(time_s, operations, result)


def ours_f32(product: Product, machine: Machine) -> Contender:
    """Return the compiler's f32 product with its bias."""
    x, weight = product.floats()
    tile = machine.tile(product.rows, product.columns)
    size = {"rows": product.rows, "depth": product.depth, "columns": product.columns, "activation": None}
    written = gemm_f32("kernel", **size, tile=tile)
    bias = row_panels(np.zeros(product.columns, np.float32), tile.panel)
    inputs = [x, panels(weight, tile.panel), bias]
    return of_kernel(written, inputs, (product.rows, product.columns), "float32", operations=product.operations)


def ours_i8(product: Product, machine: Machine) -> Contender:
    """Return the compiler's integer product, scaled back to f32, with its bias; x is quantized already."""
    x, weight = product.integers(8)
    tile, dot = machine.tile(product.rows, product.columns), machine.dot
    size = {"rows": product.rows, "depth": product.depth, "columns": product.columns, "activation": None}
    written = gemm_i8("kernel", **size, tile=tile, dot=dot)
    padded = np.zeros((product.rows, -(-product.depth // dot.group) * dot.group), dot.stored)
    padded[:, : product.depth] = x.astype(np.int32) - dot.shift
    inputs = [
        padded,
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        dot_panels(weight, tile.panel, dot.group),
        row_panels(np.ones(product.columns, np.float32), tile.panel),
        column_sums(weight, tile.panel),
        row_panels(np.zeros(product.columns, np.float32), tile.panel),
    ]
    return of_kernel(written, inputs, (product.rows, product.columns), "float32", operations=product.operations)


def ours_f16(product: Product, machine: Machine) -> Contender:
    """Return the compiler's product with bfloat16 weights and its bias; x is rounded already."""
    x, weight = map(round_bf16, product.floats())
    tile, dot = machine.half_tile(product.rows, product.columns), machine.half
    size = {"rows": product.rows, "depth": product.depth, "columns": product.columns, "activation": None}
    written = gemm_f16("kernel", **size, tile=tile, dot=dot)
    stored = {"uint16": bf16_bits, "float16": lambda values: values.astype(np.float16), "float32": np.asarray}
    bias = row_panels(np.zeros(product.columns, np.float32), tile.panel)
    inputs = [stored[dot.stored](x), half_panels(weight, tile.panel, dot), bias]
    return of_kernel(written, inputs, (product.rows, product.columns), "float32", operations=product.operations)


def ours_grouped(product: Product, machine: Machine, bits: Literal[4, 3, 2]) -> Contender:
    """Return the compiler's integer product with weights of 4, 3 or 2 bits, all scales one; x is quantized already."""
    (q, _), (_, weight) = product.integers(8), product.integers(bits)
    tile, dot = machine.nibble_tile(product.rows, product.columns), machine.nibbles
    size = {"rows": product.rows, "depth": product.depth, "columns": product.columns, "activation": None}
    written = gemm_grouped("kernel", **size, bits=bits, tile=tile, dot=dot)
    groups = -(-product.depth // WEIGHT_GROUP)
    levels = np.zeros((product.rows, groups * WEIGHT_GROUP), dot.stored)
    levels[:, : product.depth] = q.astype(np.int32) - 128
    inputs = [
        levels,
        np.ones((product.rows, groups), np.float32),
        -(2 ** (bits - 1)) * levels.reshape(product.rows, groups, WEIGHT_GROUP).sum(-1, dtype=np.int32),
        grouped_panels(weight, tile.panel, dot, bits, WeightGrid()),
        panels(np.ones((groups, product.columns), np.float32), tile.panel),
        row_panels(np.zeros(product.columns, np.float32), tile.panel),
    ]
    return of_kernel(written, inputs, (product.rows, product.columns), "float32", operations=product.operations)


def torch_f32(product: Product) -> Contender:
    """Return torch's product into a tensor that is there already."""
    torch.set_num_threads(1)
    x, weight = map(torch.from_numpy, product.floats())
    y = torch.empty((product.rows, product.columns))
    return of_call(lambda: torch.mm(x, weight, out=y), y.numpy, product.operations)


def onnxruntime_f32(product: Product) -> Contender:
    """Return ONNX Runtime's ``MatMul``."""
    x, weight = product.floats()
    return _session("MatMul", x, {"w": weight}, product)


def onnxruntime_i8(product: Product) -> Contender:
    """Return ONNX Runtime's ``MatMulInteger``, which leaves its sums as int32; weights as uint8, as we write them."""
    x, weight = product.integers(8)
    unsigned = (weight.astype(np.int16) + SIGN).astype(np.uint8)
    zeros = {"zero": np.array(0, np.uint8), "sign": np.array(SIGN, np.uint8)}
    return _session("MatMulInteger", x, {"w": unsigned, **zeros}, product)


def _session(op: str, x: Array, constants: dict[str, Array], product: Product) -> Contender:
    """Run one node with ``x`` and the result bound to memory, so that nothing is copied."""
    integers = x.dtype == np.uint8
    node = helper.make_node(op, ["x", *constants], ["y"])
    x_type = helper.np_dtype_to_tensor_dtype(x.dtype)
    y_type = onnx.TensorProto.INT32 if integers else onnx.TensorProto.FLOAT
    dimensions = [product.rows, product.columns]
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", x_type, x.shape)],
        [helper.make_tensor_value_info("y", y_type, dimensions)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result = np.zeros(dimensions, np.int32 if integers else np.float32)
    values = {"x": x, "y": result}
    bound = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", bound["x"])
    binding.bind_ortvalue_output("y", bound["y"])
    return of_call(lambda: session.run_with_iobinding(binding), bound["y"].numpy, product.operations)
