"""Write an encoder as a TVM Relax function of kernels with fixed dimensions (batch 1, a given number of tokens)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from autocompress.compiler.graph import Activation, Array, Weights, emit, groups
from autocompress.compiler.schedules.attention import attention
from autocompress.compiler.schedules.elementwise import add, first_row
from autocompress.compiler.schedules.embed import embed, nibble_rows
from autocompress.compiler.schedules.gemm_f32 import Tile, gemm_f32, panels, row_panels
from autocompress.compiler.schedules.gemm_i4 import gemm_i4, nibble_panels, quantize_groups
from autocompress.compiler.schedules.gemm_i8 import column_sums, dot_panels, gemm_i8, quantize
from autocompress.compiler.schedules.norm import norm
from autocompress.compiler.target import Machine
from autocompress.shape import WEIGHT_GROUP, Bits, ModelShape


@dataclass(frozen=True)
class Value:
    """A Relax tensor (rows x width), and a second one that is still to be added to it."""

    tensor: Any
    rows: int
    width: int
    addend: Any = None


class RelaxGraph:
    """Collects kernel calls. Weights become function parameters in ``constants``, in the layout of the kernels."""

    def __init__(self, weights: Weights, *, tokens: int, machine: Machine) -> None:
        self.weights, self.tokens, self.machine = weights, tokens, machine
        self.builder = relax.BlockBuilder()
        self.ids, self.mask = (
            relax.Var(name, relax.TensorType((1, tokens), "int64")) for name in ("input_ids", "attention_mask")
        )
        self.constants: dict[str, Array] = {}
        self.parameters: dict[str, Any] = {}
        self.kernels: dict[str, Any] = {}

    def embed(self, name: str, bits: Bits) -> Value:
        """See ``Graph.embed``."""
        word = self.weights[f"{name}.word"]
        vocabulary, width = word.shape
        inputs = [self.ids, self._constant(f"{name}.word", nibble_rows(word) if bits == 4 else word)]
        if bits != 32:
            inputs.append(self._constant(f"{name}.scale", self.weights[f"{name}.scale"]))
        inputs.append(self._constant(f"{name}.position", self.weights[f"{name}.position"][: self.tokens]))
        size = {"tokens": self.tokens, "vocabulary": vocabulary, "width": width}
        return self._call(embed, f"embed_{bits}", inputs, (self.tokens, width), bits=bits, **size, **self._lanes())

    def norm(self, x: Value, name: str, epsilon: float) -> Value:
        """See ``Graph.norm``."""
        residual = x.addend is not None
        parts = [self._constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        inputs = [x.tensor, *([x.addend] if residual else []), *parts]
        size = {"rows": x.rows, "width": x.width, "epsilon": epsilon, "residual": residual}
        return self._call(norm, "add_norm" if residual else "norm", inputs, (x.rows, x.width), **size, **self._lanes())

    def linear(self, x: Value, name: str, bits: Bits, activation: Activation | None = None) -> Value:
        """See ``Graph.linear``."""
        x = self._settled(x)
        product = {32: self._linear_f32, 8: self._linear_i8, 4: self._linear_i4}[bits]
        return product(x, name, activation)

    def _linear_f32(self, x: Value, name: str, activation: Activation | None) -> Value:
        weight = self.weights[f"{name}.weight"]
        size = self._size(x, weight, activation)
        w = self._constant(f"{name}.weight", panels(weight, size["tile"].panel))
        inputs = [x.tensor, w, self._bias(name, size["tile"])]
        return self._call(gemm_f32, "gemm_f32", inputs, (x.rows, size["columns"]), **size)

    def _linear_i4(self, x: Value, name: str, activation: Activation | None) -> Value:
        weight, dot = self.weights[f"{name}.weight"], self.machine.nibbles
        depth, columns = weight.shape
        tile = self.machine.nibble_tile(x.rows, columns)
        inputs = [
            *self._quantize_groups(x),
            self._constant(f"{name}.weight", nibble_panels(weight, tile.panel, dot.group)),
            self._constant(f"{name}.scale", panels(self.weights[f"{name}.scale"], tile.panel)),
            self._bias(name, tile),
        ]
        size = {"rows": x.rows, "depth": depth, "columns": columns, "activation": activation, "tile": tile, "dot": dot}
        return self._call(gemm_i4, "gemm_i4", inputs, (x.rows, columns), **size)

    def _quantize_groups(self, x: Value) -> list[Any]:
        dot, count = self.machine.nibbles, groups(x.width)
        results = [
            ((x.rows, count * WEIGHT_GROUP), dot.stored),
            ((x.rows, count), "float32"),
            ((x.rows, count), "int32"),
        ]
        size = {"rows": x.rows, "width": x.width, "dot": dot}
        return self._outputs(quantize_groups, "quantize_groups", x, results, **size)

    def _linear_i8(self, x: Value, name: str, activation: Activation | None) -> Value:
        weight, dot = self.weights[f"{name}.weight"], self.machine.dot
        size = self._size(x, weight, activation)
        tile = size["tile"]
        inputs = [
            *self._quantize(x),
            self._constant(f"{name}.weight", dot_panels(weight, tile, dot.group)),
            self._constant(f"{name}.scale", row_panels(self.weights[f"{name}.scale"], tile.panel)),
            self._constant(f"{name}.sums", column_sums(weight, tile.panel)),
            self._bias(name, tile),
        ]
        return self._call(gemm_i8, "gemm_i8", inputs, (x.rows, size["columns"]), dot=dot, **size)

    def _quantize(self, x: Value) -> list[Any]:
        dot = self.machine.dot
        padded = -(-x.width // dot.group) * dot.group
        results = [((x.rows, padded), dot.stored), ((1,), "float32"), ((1,), "int32")]
        size = {"rows": x.rows, "width": x.width, "dot": dot}
        return self._outputs(quantize, "quantize", x, results, **size)

    def _outputs(
        self,
        write: Callable[..., Any],
        kind: str,
        x: Value,
        results: Sequence[tuple[tuple[int, ...], str]],
        **size: Any,
    ) -> list[Any]:
        outputs = self._emit(write, kind, [x.tensor], results, **size, **self._lanes())
        return [self.builder.emit(relax.TupleGetItem(outputs, index)) for index in range(len(results))]

    def attention(self, qkv: Value, heads: int, head_width: int) -> Value:
        """See ``Graph.attention``."""
        inputs, width = [self._settled(qkv).tensor, self.mask], heads * head_width
        size = {"tokens": self.tokens, "heads": heads, "width": head_width}
        return self._call(attention, "attention", inputs, (self.tokens, width), **size, **self._lanes())

    def add(self, x: Value, y: Value) -> Value:
        """See ``Graph.add``; the sum is left to the kernel that reads it."""
        return replace(self._settled(x), addend=self._settled(y).tensor)

    def first_token(self, x: Value) -> Value:
        """See ``Graph.first_token``."""
        x = self._settled(x)
        size = {"rows": x.rows, "width": x.width}
        return self._call(first_row, "first_row", [x.tensor], (1, x.width), **size, **self._lanes())

    def _settled(self, x: Value) -> Value:
        if x.addend is None:
            return x
        size = {"rows": x.rows, "width": x.width}
        return self._call(add, "add", [x.tensor, x.addend], (x.rows, x.width), **size, **self._lanes())

    def _size(self, x: Value, weight: Array, activation: Activation | None) -> dict[str, Any]:
        depth, columns = weight.shape
        tile = self.machine.tile(x.rows, columns)
        return {"rows": x.rows, "depth": depth, "columns": columns, "activation": activation, "tile": tile}

    def _lanes(self) -> dict[str, int]:
        return {"lanes": self.machine.lanes}

    def _bias(self, name: str, tile: Tile) -> Any:
        return self._constant(f"{name}.bias", row_panels(self.weights[f"{name}.bias"], tile.panel))

    def _constant(self, name: str, values: Array) -> Any:
        self.constants[name] = np.ascontiguousarray(values)
        kind = relax.TensorType(values.shape, str(values.dtype))
        self.parameters[name] = relax.Var(name.replace(".", "_"), kind)
        return self.parameters[name]

    def _call(
        self, write: Callable[..., Any], kind: str, inputs: Sequence[Any], shape: tuple[int, int], **size: Any
    ) -> Value:
        return Value(self._emit(write, kind, inputs, [(shape, "float32")], **size), *shape)

    def _emit(
        self,
        write: Callable[..., Any],
        kind: str,
        inputs: Sequence[Any],
        results: Sequence[tuple[tuple[int, ...], str]],
        **size: Any,
    ) -> Any:
        key = f"{kind}:{sorted(size.items(), key=str)}"
        if key not in self.kernels:
            name = f"{kind}_{len(self.kernels)}"
            self.kernels[key] = self.builder.add_func(write(name, **size), name)
        outputs = [relax.TensorType(shape, dtype) for shape, dtype in results]
        return self.builder.emit(
            relax.call_tir(self.kernels[key], list(inputs), outputs if len(outputs) > 1 else outputs[0])
        )


def relax_module(shape: ModelShape, weights: Weights, *, tokens: int, machine: Machine) -> tuple[Any, dict[str, Array]]:
    """Return a module whose ``main(input_ids, attention_mask, *constants)`` gives the logits, and the constants."""
    graph = RelaxGraph(weights, tokens=tokens, machine=machine)
    with graph.builder.function("main"):
        with graph.builder.dataflow():
            logits = graph.builder.emit_output(emit(graph, shape).tensor)
        graph.builder.emit_func_output(logits, params=[graph.ids, graph.mask, *graph.parameters.values()])
    return graph.builder.finalize(), graph.constants


def compile_module(module: Any, target: tvm.target.Target) -> Any:
    """Return the compiled executable."""
    with kernel_options():
        return relax.build(module, target=target, relax_pipeline=_pipeline())


def kernel_options() -> Any:
    """Return the pass context in which kernels must be compiled."""
    # Merging the buffers of a kernel would put its registers on the heap.
    return tvm.transform.PassContext(opt_level=3, config={"tirx.disable_storage_rewrite": True})


def _pipeline() -> Any:
    """Return what is left of Relax's build pipeline where every operation is a call of a finished kernel."""
    steps = relax.transform
    return tvm.transform.Sequential(
        [
            steps.ToNonDataflow(),
            steps.RemovePurityChecking(),
            steps.CallTIRRewrite(),
            steps.StaticPlanBlockMemory(),
            steps.LowerAllocTensor(),
            steps.KillAfterLastUse(),
            steps.LowerRuntimeBuiltin(),
            steps.ComputePrimValue(),
            steps.VMShapeLower(),
            steps.AttachGlobalSymbol(),
        ]
    )
