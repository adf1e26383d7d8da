"""Choose the kernels that run an encoder on a machine (``Program``), from its shape alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from autocompress.compiler.graph import Activation, Array, Weights, bf16_bits, emit, groups, weight_specs
from autocompress.compiler.machine import Machine, Tile, Tiles
from autocompress.compiler.packing import (
    column_sums,
    dot_panels,
    grouped_panels,
    half_panels,
    lines_of,
    nibble_rows,
    panels,
    row_panels,
    zero_panels,
)
from autocompress.compiler.program import Call, Constant, Kernel, Program, Tensor
from autocompress.feeds import feeds_of
from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits, ModelShape, Pixels, WeightGrid

Results: TypeAlias = Sequence[tuple[tuple[int, ...], str]]
"""Dimensions and types of what a kernel writes."""


@dataclass(frozen=True)
class Value:
    """A tensor (rows x width), and a second one that is still to be added to it."""

    tensor: Tensor
    addend: Tensor | None = None

    @property
    def rows(self) -> int:
        """Sequences times tokens."""
        return self.tensor.dimensions[0]

    @property
    def width(self) -> int:
        """Channels."""
        return self.tensor.dimensions[1]


class Lowering:
    """Satisfies ``compiler.graph.Graph`` and collects kernel calls."""

    def __init__(
        self, shape: ModelShape, *, batch: int, tokens: int, machine: Machine, tiles: Tiles | None = None
    ) -> None:
        self.tiles: Tiles = tiles or machine.rule
        self.specs, self.batch, self.tokens, self.machine = weight_specs(shape), batch, tokens, machine
        self.constants: dict[str, Constant] = {}
        self.calls: list[Call] = []
        feeds, sizes = feeds_of(shape.pixels), {"batch": batch, "tokens": tokens}
        self.inputs = tuple(Tensor(feed.name, feed.sized(**sizes), feed.dtype) for feed in feeds)
        self.mask = self._every_token() if shape.pixels else self.inputs[-1]
        self.fresh = (f"value_{index}" for index in count())

    def _every_token(self) -> Tensor:
        """Return a mask that hides none."""
        dimensions = (self.batch, self.tokens)
        return self._constant("every_token", dimensions, "int64", lambda _: np.ones(dimensions, np.int64))

    def lookup(self, name: str, bits: EmbeddingBits) -> Value:
        """See ``Graph.lookup``."""
        (vocabulary, width), word = self._dimensions(f"{name}.word"), f"{name}.word"
        inputs = [self.inputs[0]]
        if bits == 4:
            packed = (vocabulary, groups(width) * WEIGHT_GROUP // 2)
            inputs.append(self._constant(word, packed, "uint8", lambda weights: nibble_rows(weights[word])))
        elif bits == 16:
            inputs.append(self._constant(word, (vocabulary, width), "uint16", lambda weights: bf16_bits(weights[word])))
        else:
            inputs.append(self._plain(word, "float32" if bits == 32 else "int8"))
        if bits in (8, 4):
            inputs.append(self._plain(f"{name}.scale"))
        size = {"bits": bits, "batch": self.batch, "tokens": self.tokens, "vocabulary": vocabulary, "width": width}
        return self._call("lookup", inputs, (self.batch * self.tokens, width), **size)

    def positions(self, x: Value, name: str) -> Value:
        """See ``Graph.positions``."""
        x, table, tokens = self._settled(x), f"{name}.position", self.tokens
        rows = self._constant(table, (tokens, x.width), "float32", lambda weights: weights[table][:tokens])
        return self._add(x.tensor, rows, period=tokens)

    def patches(self, pixels: Pixels) -> Value:
        """See ``Graph.patches``."""
        size = {name: getattr(pixels, name) for name in ("channels", "height", "width", "patch")}
        rows = self.batch * pixels.patches
        return self._call("patches", self.inputs, (rows, pixels.values), batch=self.batch, **size)

    def behind_learned(self, x: Value, name: str, learned: int) -> Value:
        """See ``Graph.behind_learned``."""
        inputs = [self._settled(x).tensor, self._plain(f"{name}.position")]
        size = {"batch": self.batch, "tokens": self.tokens, "learned": learned, "width": x.width}
        return self._call("behind_learned", inputs, (self.batch * self.tokens, x.width), **size)

    def norm(self, x: Value, name: str, epsilon: float) -> Value:
        """See ``Graph.norm``."""
        inputs, dimensions, size = self._norm(x, name, epsilon)
        return self._call("norm", inputs, dimensions, **size)

    def sum_and_norm(self, x: Value, y: Value, name: str, epsilon: float) -> tuple[Value, Value]:
        """See ``Graph.sum_and_norm``."""
        inputs, dimensions, size = self._norm(self.add(x, y), name, epsilon)
        total, normed = self._emit("norm", inputs, 2 * [(dimensions, "float32")], summed=True, **size)
        return Value(total), Value(normed)

    def _norm(self, x: Value, name: str, epsilon: float) -> tuple[list[Tensor], tuple[int, int], dict[str, Any]]:
        parts = [self._plain(f"{name}.{part}") for part in ("weight", "bias")]
        inputs = [x.tensor, *([] if x.addend is None else [x.addend]), *parts]
        size = {"rows": x.rows, "width": x.width, "epsilon": epsilon, "residual": x.addend is not None}
        return inputs, (x.rows, x.width), size

    def linear(
        self,
        x: Value,
        name: str,
        bits: Bits,
        activation: Activation | None = None,
        *,
        reads: Activations = "dynamic",
        grid: WeightGrid | None = None,
    ) -> Value:
        """See ``Graph.linear``."""
        x = self._settled(x)
        if grid is not None:
            return self._linear_grouped(x, name, bits, activation, grid)
        if reads != "dynamic":
            return self._product_i8(self._quantized_static(x, name, reads), x.rows, name, activation)
        product = {32: self._linear_f32, 16: self._linear_f16, 8: self._linear_i8}[bits]
        return product(x, name, activation)

    def _linear_f32(self, x: Value, name: str, activation: Activation | None) -> Value:
        weight, (depth, columns) = f"{name}.weight", self._dimensions(f"{name}.weight")
        tile = self.tiles("gemm_f32", x.rows, depth, columns)
        packed = (tile.panels(columns), depth, tile.panel)
        w = self._constant(weight, packed, "float32", lambda weights: panels(weights[weight], tile.panel))
        size = {"depth": depth, "activation": activation, "tile": tile}
        return self._product("gemm_f32", [x.tensor, w, self._bias(name, tile)], x.rows, columns, **size)

    def _linear_f16(self, x: Value, name: str, activation: Activation | None) -> Value:
        weight, (depth, columns) = f"{name}.weight", self._dimensions(f"{name}.weight")
        tile, dot = self.tiles("gemm_f16", x.rows, depth, columns), self.machine.half
        packed = (tile.panels(columns), -(-depth // dot.packed), tile.panel * dot.packed)
        inputs = [
            self._narrowed(x),
            self._constant(weight, packed, dot.weights, lambda weights: half_panels(weights[weight], tile.panel, dot)),
            self._bias(name, tile),
        ]
        size = {"depth": depth, "activation": activation, "tile": tile, "dot": dot}
        return self._product("gemm_f16", inputs, x.rows, columns, **size)

    def _narrowed(self, x: Value) -> Tensor:
        dot = self.machine.half
        if dot.stored == "float32":
            return x.tensor
        kernel = Kernel.of("narrow", rows=x.rows, width=x.width, dot=dot)
        return self._record(kernel, [x.tensor], [((x.rows, x.width), dot.stored)])[0]

    def _linear_i8(self, x: Value, name: str, activation: Activation | None) -> Value:
        return self._product_i8(self._quantized(x), x.rows, name, activation)

    def _product_i8(self, quantized: Sequence[Tensor], rows: int, name: str, activation: Activation | None) -> Value:
        weight, (depth, columns) = f"{name}.weight", self._dimensions(f"{name}.weight")
        tile, dot = self.tiles("gemm_i8", rows, depth, columns), self.machine.dot
        packed = (tile.panels(columns), -(-depth // dot.group), tile.panel * dot.group)
        sums = (tile.panels(columns), tile.panel)
        inputs = [
            *quantized,
            self._constant(weight, packed, "int8", lambda weights: dot_panels(weights[weight], tile.panel, dot.group)),
            self._row(f"{name}.scale", tile),
            self._constant(f"{name}.sums", sums, "int32", lambda weights: column_sums(weights[weight], tile.panel)),
            self._bias(name, tile),
        ]
        size = {"depth": depth, "activation": activation, "tile": tile, "dot": dot}
        return self._product("gemm_i8", inputs, rows, columns, **size)

    def _quantized_static(self, x: Value, name: str, reads: Activations) -> tuple[Tensor, ...]:
        dot, zero, smoothed = self.machine.dot, f"{name}.zero", reads == "smoothed"
        padded, step = -(-x.width // dot.group) * dot.group, self._plain(f"{name}.step")
        place = self._constant(zero, (1,), "int32", lambda weights: weights[zero].astype(np.int32))
        inputs = [x.tensor, self._plain(f"{name}.inverse") if smoothed else step, place]
        size = {"rows": x.rows, "width": x.width, "smoothed": smoothed, "dot": dot}
        return *self._emit("quantize_static", inputs, [((x.rows, padded), dot.stored)], **size), step, place

    def _quantized(self, x: Value) -> tuple[Tensor, ...]:
        dot = self.machine.dot
        padded = -(-x.width // dot.group) * dot.group
        results = (((x.rows, padded), dot.stored), ((1,), "float32"), ((1,), "int32"))
        return self._emit("quantize", [x.tensor], results, rows=x.rows, width=x.width, dot=dot)

    def _linear_grouped(
        self, x: Value, name: str, bits: Bits, activation: Activation | None, grid: WeightGrid
    ) -> Value:
        weight, (depth, columns) = f"{name}.weight", self._dimensions(f"{name}.weight")
        tile = self.tiles(f"gemm_grouped_{bits}", x.rows, depth, columns)
        dot = self.machine.in_groups(bits)
        count, scale, zeros = tile.panels(columns), f"{name}.scale", f"{name}.zero_points"
        lines = lines_of(grid.count(depth) * grid.group // dot.group, bits)
        packed, steps = (count, lines, tile.panel * dot.group), (count, grid.count(depth), tile.panel)
        inputs = [
            *self._quantized_groups(x, bits, grid),
            self._constant(
                weight, packed, "uint8", lambda weights: grouped_panels(weights[weight], tile.panel, dot, bits, grid)
            ),
            self._constant(scale, steps, "float32", lambda weights: panels(weights[scale], tile.panel)),
        ]
        if grid.zero_points:
            inputs.append(
                self._constant(zeros, steps, "uint8", lambda weights: zero_panels(weights[zeros], tile.panel, bits))
            )
        inputs.append(self._bias(name, tile))
        size = {"depth": depth, "bits": bits, "activation": activation, "tile": tile, "dot": dot, **_unusual(grid)}
        return self._product("gemm_grouped", inputs, x.rows, columns, **size)

    def _quantized_groups(self, x: Value, bits: Bits, grid: WeightGrid) -> tuple[Tensor, ...]:
        dot, count = self.machine.in_groups(bits), grid.count(x.width)
        results = (
            ((x.rows, count * grid.group), dot.stored),
            ((x.rows, count), "float32"),
            ((x.rows, count), "int32"),
        )
        size = {"rows": x.rows, "width": x.width, "bits": bits, "dot": dot, **_unusual(grid)}
        return self._emit("quantize_groups", [x.tensor], results, **size)

    def attention(self, qkv: Value, heads: int, head_width: int) -> Value:
        """See ``Graph.attention``."""
        inputs = [self._settled(qkv).tensor, self.mask]
        size = {"batch": self.batch, "tokens": self.tokens, "heads": heads, "width": head_width}
        return self._call("attention", inputs, (self.batch * self.tokens, heads * head_width), **size)

    def attention_received(self, qkv: Value, heads: int, head_width: int) -> tuple[Value, Value]:
        """See ``Graph.attention_received``; what is received has a row a sequence and head, to be summed."""
        inputs, rows = [self._settled(qkv).tensor, self.mask], self.batch * self.tokens
        size = {"batch": self.batch, "tokens": self.tokens, "heads": heads, "width": head_width, "received": True}
        results = [((rows, heads * head_width), "float32"), ((self.batch * heads, self.tokens), "float32")]
        mixed, received = self._emit("attention", inputs, results, **size)
        return Value(mixed), Value(received)

    def most_significant(self, received: Value, most: int) -> Value:
        """See ``Graph.most_significant``."""
        heads = received.rows // self.batch
        size = {"batch": self.batch, "tokens": self.tokens, "heads": heads, "most": most}
        results = [((self.batch, most), "int32"), ((self.batch, most), "int64")]
        places, self.mask = self._emit("most_significant", [received.tensor, self.mask], results, **size)
        self.tokens = most
        return Value(places)

    def take(self, x: Value, places: Value) -> Value:
        """See ``Graph.take``."""
        x, most = self._settled(x), places.width
        size = {"batch": self.batch, "tokens": x.rows // self.batch, "most": most, "width": x.width}
        return self._call("take_rows", [x.tensor, places.tensor], (self.batch * most, x.width), **size)

    def add(self, x: Value, y: Value) -> Value:
        """See ``Graph.add``; the sum is left to the kernel that reads it."""
        return replace(self._settled(x), addend=self._settled(y).tensor)

    def first_token(self, x: Value) -> Value:
        """See ``Graph.first_token``."""
        x = self._settled(x)
        size = {"batch": self.batch, "tokens": self.tokens, "width": x.width}
        return self._call("first_rows", [x.tensor], (self.batch, x.width), **size)

    def first_and_mean(self, x: Value, learned: int) -> Value:
        """See ``Graph.first_and_mean``."""
        x = self._settled(x)
        size = {"batch": self.batch, "tokens": self.tokens, "learned": learned, "width": x.width}
        return self._call("first_and_mean", [x.tensor], (self.batch, 2 * x.width), **size)

    def _settled(self, x: Value) -> Value:
        if x.addend is None:
            return x
        return self._add(x.tensor, x.addend, period=x.rows)

    def _add(self, x: Tensor, y: Tensor, *, period: int) -> Value:
        rows, width = x.dimensions
        return self._call("add", [x, y], (rows, width), rows=rows, period=period, width=width)

    def _dimensions(self, name: str) -> tuple[int, int]:
        first, second = self.specs[name].dimensions
        return first, second

    def _plain(self, name: str, dtype: str = "float32") -> Tensor:
        return self._constant(name, self.specs[name].dimensions, dtype, lambda weights: weights[name])

    def _row(self, name: str, tile: Tile) -> Tensor:
        (columns,) = self.specs[name].dimensions
        packed = (tile.panels(columns), tile.panel)
        return self._constant(name, packed, "float32", lambda weights: row_panels(weights[name], tile.panel))

    def _bias(self, name: str, tile: Tile) -> Tensor:
        return self._row(f"{name}.bias", tile)

    def _constant(self, name: str, dimensions: tuple[int, ...], dtype: str, pack: Callable[[Weights], Array]) -> Tensor:
        self.constants[name] = Constant(Tensor(name, dimensions, dtype), pack)
        return self.constants[name].tensor

    def _product(self, family: str, inputs: Sequence[Tensor], rows: int, columns: int, **size: Any) -> Value:
        (y,) = self._record(
            Kernel.of(family, rows=rows, columns=columns, **size), inputs, [((rows, columns), "float32")]
        )
        return Value(y)

    def _call(self, family: str, inputs: Sequence[Tensor], dimensions: tuple[int, int], **size: Any) -> Value:
        (y,) = self._emit(family, inputs, [(dimensions, "float32")], **size)
        return Value(y)

    def _emit(self, family: str, inputs: Sequence[Tensor], results: Results, **size: Any) -> tuple[Tensor, ...]:
        return self._record(Kernel.of(family, lanes=self.machine.lanes, **size), inputs, results)

    def _record(self, kernel: Kernel, inputs: Sequence[Tensor], results: Results) -> tuple[Tensor, ...]:
        outputs = tuple(Tensor(next(self.fresh), dimensions, dtype) for dimensions, dtype in results)
        self.calls.append(Call(kernel, tuple(inputs), outputs))
        return outputs


def _unusual(grid: WeightGrid) -> dict[str, WeightGrid]:
    """Return the grid as a size of kernels; the usual one is none, so that these keep the names they have in logs."""
    return {} if grid == WeightGrid() else {"grid": grid}


def lower(shape: ModelShape, *, tokens: int, machine: Machine, batch: int = 1, tiles: Tiles | None = None) -> Program:
    """Return the program that runs an encoder of ``shape`` on sequences of ``tokens`` tokens, ``batch`` at a time.

    ``tiles`` chooses the tile of every matrix product; by default the machine's rule.
    """
    lowering = Lowering(shape, batch=batch, tokens=tokens, machine=machine, tiles=tiles)
    logits = emit(lowering, _as_run(shape, tokens))
    read = {tensor for call in lowering.calls for tensor in call.inputs}
    constants = tuple(constant for constant in lowering.constants.values() if constant.tensor in read)
    return Program(lowering.inputs, constants, tuple(lowering.calls), logits.tensor)


def _as_run(shape: ModelShape, tokens: int) -> ModelShape:
    """Return ``shape`` without the choice of tokens where no more than may go on reach a layer."""
    pairs = zip(shape.layers, shape.tokens_reaching(tokens), strict=False)
    chosen = tuple(
        layer if layer.most_tokens < reaching else replace(layer, most_tokens=0) for layer, reaching in pairs
    )
    return replace(shape, layers=chosen)
