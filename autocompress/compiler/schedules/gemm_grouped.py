"""Quantization of activations a row and group, and their product with weights that stay at 4 or 2 bits in memory."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import Dot
from autocompress.compiler.graph import Activation, groups
from autocompress.compiler.intrinsics.dot import accumulate_nibbles
from autocompress.compiler.machine import Tile
from autocompress.compiler.packing import offset_of
from autocompress.compiler.schedules.gemm_f32 import Epilogue, finished
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Reduction,
    Register,
    argument,
    ask_for_next,
    kernel,
    load,
    parallel_tiles,
    spans,
    splat,
    store,
    tile_rows,
    typed,
)
from autocompress.shape import WEIGHT_GROUP

_LEVELS = 127.0


def quantize_groups(name: str, *, rows: int, width: int, bits: int, dot: Dot, lanes: int) -> Kernel:
    """Return the kernel (x, q (rows x padded width), scale (rows x groups), excess (rows x groups) int32).

    q = round(x * (127 / m)), half to even, and scale = m / 127, where m is the largest magnitude of a row's 32
    channels (all zero where m is), as ONNX Runtime's MatMulNBits has it. ``excess`` is the sum of q
    times what was added to the weights of ``bits``, negative.
    """

    def write() -> None:
        x = argument("x", (rows, width))
        q = argument("q", (rows, groups(width) * WEIGHT_GROUP), dot.stored)
        scale = argument("scale", (rows, groups(width)))
        excess = argument("excess", (rows, groups(width)), "int32")
        full, rest = divmod(width, WEIGHT_GROUP)
        with ir.parallel(0, rows) as row:
            if full:
                with ir.serial(0, full) as group:
                    _quantize_group(x, q, scale, excess, row, group, WEIGHT_GROUP, bits, lanes)
            if rest:
                _quantize_group(x, q, scale, excess, row, full, rest, bits, lanes)
                for start, count in spans(WEIGHT_GROUP - rest, lanes):
                    store(q, splat(tirx.const(0, dot.stored), count), row, start=width + start, lanes=count)

    return kernel(name, write)


def _quantize_group(
    x: Buffer, q: Buffer, scale: Buffer, excess: Buffer, row: Expr, group: Expr, width: int, bits: int, lanes: int
) -> None:
    first = group * WEIGHT_GROUP
    largest, total = Reduction(0.0, lanes, ir.max), Reduction(0.0, lanes, lambda a, b: a + b)
    for start, count in spans(width, lanes):
        largest.take(ir.abs(load(x, row, start=first + start, lanes=count)), count)
    m, inverse = Register(ir.float32(0)), Register(ir.float32(0))
    m.set(largest.result())
    ir.buffer_store(scale, m.get() / ir.float32(_LEVELS), [row, group])
    inverse.set(tirx.Select(m.get() > ir.float32(0), ir.float32(_LEVELS) / m.get(), ir.float32(0)))
    for start, count in spans(width, lanes):
        level = Register(ir.float32(0), lanes=count)
        level.set(ir.nearbyint(load(x, row, start=first + start, lanes=count) * splat(inverse.get(), count)))
        whole = ir.cast(ir.cast(level.get(), typed("int32", count)), typed(q.dtype, count))
        store(q, whole, row, start=first + start, lanes=count)
        total.take(level.get(), count)
    ir.buffer_store(excess, ir.cast(total.result() * ir.float32(-offset_of(bits)), "int32"), [row, group])


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
) -> Kernel:
    """Return the kernel (q, scale, excess, W grouped panels, W scale (panels x groups x panel), bias panels, y).

    The int32 sums within a group are exact; y = activation(sum over groups of scale * W scale * sums, in f32, + bias).
    """
    count, height = tile.panels(columns), tile_rows(rows, tile.rows)
    steps = groups(depth) * WEIGHT_GROUP // dot.group // (8 // bits)

    def write() -> None:
        q = argument("q", (rows, groups(depth) * WEIGHT_GROUP), dot.stored)
        scale = argument("scale", (rows, groups(depth)))
        excess = argument("excess", (rows, groups(depth)), "int32")
        w = argument("w", (count, steps, tile.panel * dot.group), "uint8")
        w_scale = argument("w_scale", (count, groups(depth), tile.panel))
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        starts = range(0, tile.panel, dot.lanes)
        with parallel_tiles(rows, height, count) as (panel, row):
            block = _Block(q, excess, w, row, panel, height, starts, bits, dot, tile.ahead)
            totals = [[Register(ir.float32(0), lanes=dot.lanes) for _ in starts] for _ in range(height)]
            with ir.serial(0, groups(depth)) as group:
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
    row: Expr
    panel: Expr
    height: int
    starts: range
    bits: int
    dot: Dot
    ahead: bool

    def sums(self, group: Expr) -> list[list[Register]]:
        """Return the sums within one group of channels, one list a row."""
        dot, share = self.dot, 8 // self.bits
        sums = [
            [Register(self.excess[self.row + index, group], dtype="int32", lanes=dot.lanes) for _ in self.starts]
            for index in range(self.height)
        ]
        steps = WEIGHT_GROUP // dot.group
        for first in range(0, steps, share):
            line = group * (steps // share) + first // share
            if self.ahead:
                ask_for_next(self.w, self.panel, self.row, line, rows=int(self.q.shape[0]), height=self.height)
            for at, start in enumerate(self.starts):
                size = dot.lanes * dot.group
                packed = load(self.w, self.panel, line, start=start * dot.group, lanes=size)
                for part in range(share):
                    b = Register(tirx.const(0, "uint8"), dtype="uint8", lanes=size)
                    b.set(self._unpacked(packed, part * self.bits, size))
                    channel = group * WEIGHT_GROUP + (first + part) * dot.group
                    self._add(sums, at, channel, b)
        return sums

    def _unpacked(self, packed: Expr, shift: int, size: int) -> Expr:
        moved = packed >> splat(tirx.const(shift, "uint8"), size) if shift else packed
        if shift + self.bits == 8:
            return moved
        return moved & splat(tirx.const((1 << self.bits) - 1, "uint8"), size)

    def _add(self, sums: list[list[Register]], at: int, channel: Expr, b: Register) -> None:
        for index in range(self.height):
            a = load(self.q, self.row + index, start=channel, lanes=self.dot.group)
            total = sums[index][at]
            total.set(accumulate_nibbles(self.dot, total.get(), a, b.get()))
