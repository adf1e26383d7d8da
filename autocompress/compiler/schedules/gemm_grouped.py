"""Quantization of activations a row and group, and their product with weights in groups, packed as they are in memory.

Sums within a group of 128 are at most 128 * 127 * 255 = 4,145,280 large: as int32, as f32 where they are scaled, and
as the f32 sums of levels from which ``excess`` is made, all of them are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import Dot
from autocompress.compiler.graph import Activation
from autocompress.compiler.intrinsics.dot import accumulate_nibbles
from autocompress.compiler.machine import Tile, tile_rows
from autocompress.compiler.packing import FIELDS, Field, lines_of, offset_of
from autocompress.compiler.schedules.gemm_f32 import Epilogue, finished
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Reduction,
    Register,
    argument,
    ask_for_next,
    fold_each,
    kernel,
    load,
    on_stack,
    parallel_tiles,
    spans,
    splat,
    store,
    store_first,
    typed,
)
from autocompress.shape import WeightGrid

_LEVELS = 127.0
_UNROLLED = 32
"""Channels of which the steps are written out; every group is a multiple."""


_USUAL = WeightGrid()


def quantize_groups(
    name: str, *, rows: int, width: int, bits: int, dot: Dot, lanes: int, grid: WeightGrid = _USUAL
) -> Kernel:
    """Return the kernel (x, q (rows x padded width), scale (rows x groups), excess (rows x groups) int32).

    q = round(x * (127 / m)), half to even, and scale = m / 127, where m is the largest magnitude of a row's channels in
    a group (all zero where m is), as ONNX Runtime's MatMulNBits has it. ``excess`` is the sum of q times what was added
    to the weights of ``bits``, negative; the negative sum itself where groups have zero points.
    """
    offset, blocks = 1 if grid.zero_points else offset_of(bits, dot), grid.count(width)

    def write() -> None:
        x = argument("x", (rows, width))
        q = argument("q", (rows, blocks * grid.group), dot.stored)
        scale = argument("scale", (rows, blocks))
        excess = argument("excess", (rows, blocks), "int32")
        full, rest = divmod(width, grid.group)
        with ir.parallel(0, rows) as row:
            one = _Quantizer(x, q, scale, excess, row, grid.group, offset, lanes)
            if full // lanes:
                with ir.serial(0, full // lanes) as block:
                    one.full_groups(block * lanes, lanes)
            if full % lanes:
                one.full_groups(full // lanes * lanes, full % lanes)
            if rest:
                one.last_group(full, rest)
            for start, count in spans(-width % grid.group, lanes):
                store(q, splat(tirx.const(0, dot.stored), count), row, start=width + start, lanes=count)

    return kernel(name, write)


@dataclass(frozen=True)
class _Quantizer:
    """Quantizes groups of one row, as many at a time as a vector has lanes, which then hold a value a group."""

    x: Buffer
    q: Buffer
    scale: Buffer
    excess: Buffer
    row: Expr
    group: int
    offset: int
    lanes: int

    def full_groups(self, first: Expr, count: int) -> None:
        """Write ``count`` groups, at most as many as there are lanes."""
        lanes = self.lanes
        each = on_stack((count, lanes))
        inverse = on_stack((lanes,))
        with ir.serial(0, count) as index:
            largest = Register(ir.float32(0), lanes=lanes)
            for start in range(0, self.group, lanes):
                value = load(self.x, self.row, start=(first + index) * self.group + start, lanes=lanes)
                largest.set(ir.max(largest.get(), ir.abs(value)))
            store(each, largest.get(), index, start=0, lanes=lanes)
        m = Register(ir.float32(0), lanes=lanes)
        m.set(fold_each(self._rows(each, count), ir.max))
        self._scale(m.get(), first, count, inverse)
        with ir.serial(0, count) as index:
            total = Register(ir.float32(0), lanes=lanes)
            for start in range(0, self.group, lanes):
                level = self._round((first + index) * self.group + start, inverse[index], lanes)
                total.set(total.get() + level)
            store(each, total.get(), index, start=0, lanes=lanes)
        totals = fold_each(self._rows(each, count), lambda a, b: a + b) * splat(ir.float32(-self.offset), lanes)
        whole = ir.cast(totals, typed("int32", lanes))
        store_first(self.excess, whole, self.row, start=first, count=count, lanes=lanes)

    def last_group(self, group: int, width: int) -> None:
        """Write a group that has fewer channels."""
        largest, total = Reduction(0.0, self.lanes, ir.max), Reduction(0.0, self.lanes, lambda a, b: a + b)
        inverse = on_stack((1,))
        for start, count in spans(width, self.lanes):
            largest.take(ir.abs(load(self.x, self.row, start=group * self.group + start, lanes=count)), count)
        self._scale(largest.result(), group, 1, inverse)
        for start, count in spans(width, self.lanes):
            total.take(self._round(group * self.group + start, inverse[0], count), count)
        ir.buffer_store(self.excess, ir.cast(total.result() * ir.float32(-self.offset), "int32"), [self.row, group])

    def _rows(self, each: Buffer, count: int) -> list[Expr]:
        zeros = [splat(ir.float32(0), self.lanes)] * (self.lanes - count)
        return [load(each, index, start=0, lanes=self.lanes) for index in range(count)] + zeros

    def _scale(self, m: Expr, first: Expr, count: int, inverse: Buffer) -> None:
        lanes = int(inverse.shape[0])
        levels, zero = splat(ir.float32(_LEVELS), lanes), splat(ir.float32(0), lanes)
        held = Register(ir.float32(0), lanes=lanes)
        held.set(m)
        store_first(self.scale, held.get() / levels, self.row, start=first, count=count, lanes=lanes)
        store(inverse, tirx.Select(held.get() > zero, levels / held.get(), zero), start=0, lanes=lanes)

    def _round(self, start: Expr, inverse: Expr, lanes: int) -> Expr:
        level = Register(ir.float32(0), lanes=lanes)
        level.set(ir.nearbyint(load(self.x, self.row, start=start, lanes=lanes) * splat(inverse, lanes)))
        whole = ir.cast(ir.cast(level.get(), typed("int32", lanes)), typed(self.q.dtype, lanes))
        store(self.q, whole, self.row, start=start, lanes=lanes)
        return level.get()


def gemm_grouped(
    name: str,
    *,
    rows: int,
    depth: int,
    columns: int,
    bits: int,
    activation: Activation | None,
    tile: Tile,
    dot: Dot,
    grid: WeightGrid = _USUAL,
) -> Kernel:
    """Return the kernel (q, scale, excess, W grouped panels, W scale (panels x groups x panel), bias panels, y).

    Before the bias come the zero points (panels x groups x panel), if the grid has any. The int32 sums within a group
    are exact; y = activation(sum over groups of scale * W scale * sums, in f32, + bias).
    """
    count, height, blocks = tile.panels(columns), tile_rows(rows, tile.rows), grid.count(depth)
    lines = lines_of(blocks * grid.group // dot.group, bits)

    def write() -> None:
        q = argument("q", (rows, blocks * grid.group), dot.stored)
        scale = argument("scale", (rows, blocks))
        excess = argument("excess", (rows, blocks), "int32")
        w = argument("w", (count, lines, tile.panel * dot.group), "uint8")
        w_scale = argument("w_scale", (count, blocks, tile.panel))
        zeros = argument("zeros", (count, blocks, tile.panel), "uint8") if grid.zero_points else None
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        starts = range(0, tile.panel, dot.lanes)
        with parallel_tiles(rows, height, count) as (panel, row):
            block = _Block(q, excess, w, zeros, row, panel, height, starts, bits, dot, tile.ahead, grid.group)
            totals = [[Register(ir.float32(0), lanes=dot.lanes) for _ in starts] for _ in range(height)]
            with ir.serial(0, blocks) as group:
                sums = block.sums(group)
                for index in range(height):
                    for start, total, exact in zip(starts, totals[index], sums[index], strict=True):
                        step = load(w_scale, panel, group, start=start, lanes=dot.lanes)
                        value = ir.cast(exact.get(), typed("float32", dot.lanes)) * step
                        total.set(total.get() + value * splat(scale[row + index, group], dot.lanes))
            epilogue.write(finished(totals), row, panel)

    return kernel(name, write)


@dataclass(frozen=True)
class _Block:
    """The integer products that one tile of y is the sum of."""

    q: Buffer
    excess: Buffer
    w: Buffer
    zeros: Buffer | None
    row: Expr
    panel: Expr
    height: int
    starts: range
    bits: int
    dot: Dot
    ahead: bool
    group: int

    def sums(self, group: Expr) -> list[list[Register]]:
        """Return the sums within one group of channels, one list a row."""
        sums = [[self._first(group, index, start) for start in self.starts] for index in range(self.height)]
        if self.group == _UNROLLED:
            self._add_channels(sums, group)
        else:
            with ir.serial(0, self.group // _UNROLLED) as part:
                self._add_channels(sums, group * (self.group // _UNROLLED) + part)
        return sums

    def _first(self, group: Expr, index: int, start: int) -> Register:
        """Return what the zero points of the weights, as they are stored, take from a sum."""
        excess = self.excess[self.row + index, group]
        first = Register(excess, dtype="int32", lanes=self.dot.lanes)
        if self.zeros is not None:
            zeros = load(self.zeros, self.panel, group, start=start, lanes=self.dot.lanes)
            first.set(first.get() * ir.cast(zeros, typed("int32", self.dot.lanes)))
        return first

    def _add_channels(self, sums: list[list[Register]], block: Expr) -> None:
        """Add the products of one block of ``_UNROLLED`` channels."""
        dot, fields = self.dot, FIELDS[self.bits]
        steps, size = _UNROLLED // dot.group, dot.lanes * dot.group
        for first in range(0, steps, len(fields)):
            start_line = block * lines_of(steps, self.bits) + lines_of(first, self.bits)
            lines = [start_line + line for line in range(lines_of(len(fields), self.bits))]
            if self.ahead:
                for line in lines:
                    ask_for_next(self.w, self.panel, self.row, line, rows=int(self.q.shape[0]), height=self.height)
            for at, start in enumerate(self.starts):
                packed = [load(self.w, self.panel, line, start=start * dot.group, lanes=size) for line in lines]
                for step, parts in enumerate(fields, first):
                    b = Register(tirx.const(0, "uint8"), dtype="uint8", lanes=size)
                    b.set(reduce(or_, (_bits(packed, part, size) for part in parts)))
                    self._add(sums, at, block * _UNROLLED + step * dot.group, b)

    def _add(self, sums: list[list[Register]], at: int, channel: Expr, b: Register) -> None:
        for index in range(self.height):
            a = load(self.q, self.row + index, start=channel, lanes=self.dot.group)
            total = sums[index][at]
            total.set(accumulate_nibbles(self.dot, total.get(), a, b.get()))


def _bits(packed: Sequence[Expr], part: Field, size: int) -> Expr:
    """Return some bits of ``size`` weights, out of the lines of bytes that these share."""
    byte = packed[part.line]
    moved = byte >> splat(tirx.const(part.shift, "uint8"), size) if part.shift else byte
    return moved if part.mask == 0xFF >> part.shift else moved & splat(tirx.const(part.mask, "uint8"), size)
