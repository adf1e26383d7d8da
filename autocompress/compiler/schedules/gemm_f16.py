"""y = activation(x @ W + bias) with weights that are bfloat16 numbers, kept in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import HalfDot
from autocompress.compiler.graph import Activation
from autocompress.compiler.intrinsics import half
from autocompress.compiler.machine import Tile, tile_rows
from autocompress.compiler.schedules.gemm_f32 import Epilogue, finished
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Register,
    argument,
    ask_for_next,
    for_spans,
    kernel,
    load,
    parallel_tiles,
    store,
    typed,
)


def narrow(name: str, *, rows: int, width: int, dot: HalfDot) -> Kernel:
    """Return the kernel (x, x in ``dot.stored``), rounded to nearest, halves to even.

    As f16, values from 65520 become infinite.
    """

    def write() -> None:
        x, y = argument("x", (rows, width)), argument("y", (rows, width), dot.stored)
        with _functions(dot), ir.parallel(0, rows) as row:

            def body(start: Expr, count: int) -> None:
                value = half.narrow(dot, load(x, row, start=start, lanes=count), count)
                store(y, value, row, start=start, lanes=count)

            for_spans(width, dot.lanes, body)

    return kernel(name, write)


def gemm_f16(
    name: str, *, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile, dot: HalfDot
) -> Kernel:
    """Return the kernel (x in ``dot.stored``, W panels, bias panels, y in f32); ``tile.lanes`` is ``dot.lanes``."""
    count, height, steps = tile.panels(columns), tile_rows(rows, tile.rows), -(-depth // dot.packed)

    def write() -> None:
        x = argument("x", (rows, depth), dot.stored)
        w = argument("w", (count, steps, tile.panel * dot.packed), dot.weights)
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        with _functions(dot), parallel_tiles(rows, height, count) as (panel, row):
            block = _Block(x, w, row, panel, depth, tile, dot)
            totals = block.sums(height, "float32")
            if dot.longest:
                block.in_parts(totals)
            else:
                block.add(totals, 0, depth)
            epilogue.write(finished(totals), row, panel)

    return kernel(name, write)


def _functions(dot: HalfDot) -> AbstractContextManager[Any]:
    code = half.code(dot)
    return ir.attr(tirx.const(0, "int32"), "pragma_import_llvm", code) if code else nullcontext()


class _Block:
    """The products that one tile of y is the sum of."""

    def __init__(self, x: Buffer, w: Buffer, row: Expr, panel: Expr, depth: int, tile: Tile, dot: HalfDot) -> None:
        self.x, self.w, self.row, self.panel, self.depth, self.dot = x, w, row, panel, depth, dot
        self.starts, self.ahead = range(0, tile.panel, dot.lanes), tile.ahead

    def sums(self, height: int, dtype: str) -> list[list[Register]]:
        """Return registers of zeros, one list a row."""
        zero, lanes = tirx.const(0, dtype), self.dot.lanes
        return [[Register(zero, dtype=dtype, lanes=lanes) for _ in self.starts] for _ in range(height)]

    def in_parts(self, totals: list[list[Register]]) -> None:
        """Add all products, in sums of a shorter type that take the longest number of them that it allows."""
        longest = self.dot.longest
        full, rest = divmod(self.depth, longest)
        if full:
            with ir.serial(0, full) as part:
                self._part(totals, part * longest, longest)
        if rest:
            self._part(totals, full * longest, rest)

    def _part(self, totals: list[list[Register]], first: Expr, depth: int) -> None:
        sums = self.sums(len(totals), "float16")
        self.add(sums, first, depth)
        for line, parts in zip(totals, sums, strict=True):
            for total, part in zip(line, parts, strict=True):
                total.set(total.get() + ir.cast(part.get(), typed("float32", self.dot.lanes)))

    def add(self, sums: list[list[Register]], first: Expr, depth: int) -> None:
        """Add ``depth`` products, from ``first`` on, where a step begins."""
        packed = self.dot.packed
        full, rest = divmod(depth, packed)
        if full:
            with ir.serial(0, full) as step:
                self._step(sums, first + step * packed, packed)
        if rest:
            self._step(sums, first + full * packed, rest)

    def _step(self, sums: list[list[Register]], k: Expr, depth: int) -> None:
        dot = self.dot
        if self.ahead:
            rows, height = int(self.x.shape[0]), len(sums)
            ask_for_next(self.w, self.panel, self.row, k // dot.packed, rows=rows, height=height)
        for at in range(0, depth, dot.group):
            weights = [half.unpack(dot, self._weights(start, k), at) for start in self.starts]
            for index, line in enumerate(sums):
                a = self._activations(index, k + at, min(dot.group, depth - at))
                for b, total in zip(weights, line, strict=True):
                    total.set(half.accumulate(dot, total.get(), a, b))

    def _weights(self, start: int, k: Expr) -> Expr:
        packed = self.dot.packed
        return load(self.w, self.panel, k // packed, start=start * packed, lanes=self.dot.lanes * packed)

    def _activations(self, index: int, k: Expr, depth: int) -> Expr:
        a = load(self.x, self.row + index, start=k, lanes=depth)
        if depth == self.dot.group:
            return a
        # The last of an odd depth, and a zero.
        return tirx.Shuffle([a, tirx.const(0, self.dot.stored)], [tirx.const(at, "int32") for at in range(2)])
