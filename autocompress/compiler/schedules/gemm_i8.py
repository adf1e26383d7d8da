"""Quantization of activations to uint8, and the integer product with int8 weights."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import Dot
from autocompress.compiler.graph import Activation
from autocompress.compiler.intrinsics.dot import accumulate
from autocompress.compiler.machine import Tile, tile_rows
from autocompress.compiler.schedules.gemm_f32 import Epilogue, finished
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Reduction,
    Register,
    argument,
    ask_for_next,
    for_spans,
    kernel,
    load,
    parallel_tiles,
    spans,
    splat,
    store,
    typed,
)


def quantize(name: str, *, rows: int, width: int, dot: Dot, lanes: int) -> Kernel:
    """Return the kernel (x, q (rows x width padded to groups), scale (1,), zero (1,) int32).

    ONNX DynamicQuantizeLinear: the range of the whole tensor, widened to hold 0, in 255 steps, half to even.
    """
    padded = -(-width // dot.group) * dot.group

    def write() -> None:
        x = argument("x", (rows, width))
        q = argument("q", (rows, padded), dot.stored)
        scale, zero = argument("scale", (1,)), argument("zero", (1,), "int32")
        low, high = (ir.alloc_buffer((rows,), "float32") for _ in range(2))
        with ir.parallel(0, rows) as row:
            _extremes(x, low, high, row, width, lanes)
        _parameters(low, high, scale, zero, rows)
        with ir.parallel(0, rows) as row:

            def body(start: Expr, count: int) -> None:
                steps = ir.nearbyint(load(x, row, start=start, lanes=count) / splat(scale[0], count))
                whole = ir.cast(steps, typed("int32", count)) + splat(zero[0], count)
                whole = ir.max(ir.min(whole, splat(ir.int32(255), count)), splat(ir.int32(0), count))
                whole = ir.cast(whole - splat(ir.int32(dot.shift), count), typed(dot.stored, count))
                store(q, whole, row, start=start, lanes=count)

            for_spans(width, lanes, body)
            _pad(q, row, width, lanes)

    return kernel(name, write)


def quantize_static(name: str, *, rows: int, width: int, smoothed: bool, dot: Dot, lanes: int) -> Kernel:
    """Return the kernel (x, step (1,) or inverse (width,) if ``smoothed``, zero (1,) int32, q (rows x padded width)).

    q = clip(round(a) + zero, 0, 255), half to even, with a = x / step or x * inverse. What lies outside the range is
    clipped while it is a float: it may be no int32.
    """
    padded = -(-width // dot.group) * dot.group

    def write() -> None:
        x = argument("x", (rows, width))
        factor = argument("inverse", (width,)) if smoothed else argument("step", (1,))
        zero = argument("zero", (1,), "int32")
        q = argument("q", (rows, padded), dot.stored)
        with ir.parallel(0, rows) as row:

            def body(start: Expr, count: int) -> None:
                values = load(x, row, start=start, lanes=count)
                factors = load(factor, start=start, lanes=count) if smoothed else splat(factor[0], count)
                scaled = values * factors if smoothed else values / factors
                low, high = (ir.cast(ir.int32(end) - zero[0], "float32") for end in (0, 255))
                steps = ir.max(ir.min(ir.nearbyint(scaled), splat(high, count)), splat(low, count))
                whole = ir.cast(steps, typed("int32", count)) + splat(zero[0] - ir.int32(dot.shift), count)
                store(q, ir.cast(whole, typed(dot.stored, count)), row, start=start, lanes=count)

            for_spans(width, lanes, body)
            _pad(q, row, width, lanes)

    return kernel(name, write)


def _pad(q: Buffer, row: Expr, width: int, lanes: int) -> None:
    """Write zeros behind the channels of a row."""
    for start, count in spans(int(q.shape[1]) - width, lanes):
        store(q, splat(tirx.const(0, q.dtype), count), row, start=width + start, lanes=count)


def _extremes(x: Buffer, low: Buffer, high: Buffer, row: Expr, width: int, lanes: int) -> None:
    smallest, largest = Reduction(0.0, lanes, ir.min), Reduction(0.0, lanes, ir.max)

    def body(start: Expr, count: int) -> None:
        smallest.take(load(x, row, start=start, lanes=count), count)
        largest.take(load(x, row, start=start, lanes=count), count)

    for_spans(width, lanes, body)
    ir.buffer_store(low, smallest.result(), [row])
    ir.buffer_store(high, largest.result(), [row])


def _parameters(low: Buffer, high: Buffer, scale: Buffer, zero: Buffer, rows: int) -> None:
    smallest, largest = Register(ir.float32(0)), Register(ir.float32(0))
    with ir.serial(0, rows) as row:
        smallest.set(ir.min(smallest.get(), low[row]))
        largest.set(ir.max(largest.get(), high[row]))
    step = (largest.get() - smallest.get()) / ir.float32(255)
    ir.buffer_store(scale, tirx.Select(smallest.get() == largest.get(), ir.float32(1), step), [0])
    offset = ir.cast(ir.nearbyint((ir.float32(0) - smallest.get()) / scale[0]), "int32")
    ir.buffer_store(zero, ir.max(ir.min(offset, ir.int32(255)), ir.int32(0)), [0])


def gemm_i8(
    name: str, *, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile, dot: Dot
) -> Kernel:
    """Return the kernel (q, scale, zero, W, W scale, W column sums, bias, y); W and the rest in panels.

    The int32 sums are exact; y = activation(f32(sums) * (scale * W scale) + bias).
    """
    steps, count, height = -(-depth // dot.group), tile.panels(columns), tile_rows(rows, tile.rows)

    def write() -> None:
        q = argument("q", (rows, steps * dot.group), dot.stored)
        scale, zero = argument("scale", (1,)), argument("zero", (1,), "int32")
        w = argument("w", (count, steps, tile.panel * dot.group), "int8")
        w_scale = argument("w_scale", (count, tile.panel))
        w_sums = argument("w_sums", (count, tile.panel), "int32")
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        with parallel_tiles(rows, height, count) as (panel, row):
            starts = range(0, tile.panel, dot.lanes)
            offset = splat(ir.int32(dot.shift) - zero[0], dot.lanes)
            firsts = [offset * load(w_sums, panel, start=start, lanes=dot.lanes) for start in starts]
            sums = _multiply(q, w, row, panel, height, firsts, dot, tile.ahead)
            factors = [
                splat(scale[0], dot.lanes) * load(w_scale, panel, start=start, lanes=dot.lanes) for start in starts
            ]
            back = [
                [
                    ir.cast(value, typed("float32", dot.lanes)) * factor
                    for value, factor in zip(line, factors, strict=True)
                ]
                for line in finished(sums)
            ]
            epilogue.write(back, row, panel)

    return kernel(name, write)


def _multiply(
    q: Buffer, w: Buffer, row: Expr, panel: Expr, height: int, firsts: list[Expr], dot: Dot, ahead: bool
) -> list[list[Register]]:
    """Write the int32 sums of all products of a tile and of ``firsts``, one a vector of columns; one list a row."""
    sums = [[Register(ir.int32(0), dtype="int32", lanes=dot.lanes) for _ in firsts] for _ in range(height)]
    for line in sums:
        for total, first in zip(line, firsts, strict=True):
            total.set(first)
    size = dot.lanes * dot.group
    with ir.serial(0, int(w.shape[1])) as step:
        if ahead:
            ask_for_next(w, panel, row, step, rows=int(q.shape[0]), height=height)
        for index, line in enumerate(sums):
            a = load(q, row + index, start=step * dot.group, lanes=dot.group)
            for at, total in enumerate(line):
                b = load(w, panel, step, start=at * size, lanes=size)
                total.set(accumulate(dot, total.get(), a, b))
    return sums
