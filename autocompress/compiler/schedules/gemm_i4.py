"""Quantization of activations a row and group, and their integer product with weights that stay at 4 bits in memory."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import Dot
from autocompress.compiler.graph import Activation, groups
from autocompress.compiler.intrinsics.dot import accumulate_nibbles
from autocompress.compiler.machine import Tile
from autocompress.compiler.packing import NIBBLE_OFFSET
from autocompress.compiler.schedules.gemm_f32 import Epilogue, finished
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Reduction,
    Register,
    argument,
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


def quantize_groups(name: str, *, rows: int, width: int, dot: Dot, lanes: int) -> Kernel:
    """Return the kernel (x, q (rows x padded width), scale (rows x groups), excess (rows x groups) int32).

    q = round(x * (127 / m)), half to even, and scale = m / 127, where m is the largest magnitude of a row's 32
    channels (all zero where m is), as ONNX Runtime's MatMulNBits has it. ``excess`` is -8 times the sum of q.
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
                    _quantize_group(x, q, scale, excess, row, group, WEIGHT_GROUP, lanes)
            if rest:
                _quantize_group(x, q, scale, excess, row, full, rest, lanes)
                for start, count in spans(WEIGHT_GROUP - rest, lanes):
                    store(q, splat(tirx.const(0, dot.stored), count), row, start=width + start, lanes=count)

    return kernel(name, write)


def _quantize_group(
    x: Buffer, q: Buffer, scale: Buffer, excess: Buffer, row: Expr, group: Expr, width: int, lanes: int
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
    ir.buffer_store(excess, ir.cast(total.result() * ir.float32(-NIBBLE_OFFSET), "int32"), [row, group])


def gemm_i4(
    name: str, *, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile, dot: Dot
) -> Kernel:
    """Return the kernel (q, scale, excess, W nibble panels, W scale (panels x groups x panel), bias panels, y).

    The int32 sums within a group are exact; y = activation(sum over groups of scale * W scale * sums, in f32, + bias).
    """
    count, height = -(-columns // tile.panel), tile_rows(rows, tile.rows)
    pairs = groups(depth) * WEIGHT_GROUP // dot.group // 2

    def write() -> None:
        q = argument("q", (rows, groups(depth) * WEIGHT_GROUP), dot.stored)
        scale = argument("scale", (rows, groups(depth)))
        excess = argument("excess", (rows, groups(depth)), "int32")
        w = argument("w", (count, pairs, tile.panel * dot.group), "uint8")
        w_scale = argument("w_scale", (count, groups(depth), tile.panel))
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        starts = range(0, tile.panel, dot.lanes)
        with parallel_tiles(rows, height, count) as (panel, row):
            totals = [[Register(ir.float32(0), lanes=dot.lanes) for _ in starts] for _ in range(height)]
            with ir.serial(0, groups(depth)) as group:
                sums = _group_sums(q, excess, w, row, panel, group, height, starts, dot)
                for index in range(height):
                    for start, total, exact in zip(starts, totals[index], sums[index], strict=True):
                        step = load(w_scale, panel, group, start=start, lanes=dot.lanes)
                        value = ir.cast(exact.get(), typed("float32", dot.lanes)) * step
                        total.set(total.get() + value * splat(scale[row + index, group], dot.lanes))
            epilogue.write(finished(totals), row, panel)

    return kernel(name, write)


def _group_sums(
    q: Buffer,
    excess: Buffer,
    w: Buffer,
    row: Expr,
    panel: Expr,
    group: Expr,
    height: int,
    starts: range,
    dot: Dot,
) -> list[list[Register]]:
    sums = [
        [Register(excess[row + index, group], dtype="int32", lanes=dot.lanes) for _ in starts]
        for index in range(height)
    ]
    size, steps = dot.lanes * dot.group, WEIGHT_GROUP // dot.group
    for step in range(0, steps, 2):
        for at, start in enumerate(starts):
            packed = load(w, panel, group * (steps // 2) + step // 2, start=start * dot.group, lanes=size)
            for half, shift in enumerate((0, 4)):
                b = Register(tirx.const(0, "uint8"), dtype="uint8", lanes=size)
                value = (
                    packed >> splat(tirx.const(4, "uint8"), size)
                    if shift
                    else packed & splat(tirx.const(15, "uint8"), size)
                )
                b.set(value)
                for index in range(height):
                    a = load(q, row + index, start=group * WEIGHT_GROUP + (step + half) * dot.group, lanes=dot.group)
                    sums[index][at].set(accumulate_nibbles(dot, sums[index][at].get(), a, b.get()))
    return sums
