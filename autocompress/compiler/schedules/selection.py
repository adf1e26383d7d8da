"""Which tokens go on, and their rows."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.schedules.vectors import (
    Expr,
    Kernel,
    Register,
    argument,
    for_spans,
    kernel,
    load,
    splat,
    store,
    typed,
)

_FIRST, _PADDING = 3.0e38, -1.0
"""Ranks of the first token and of padding; those of the others are sums of shares."""


def most_significant(name: str, *, batch: int, tokens: int, heads: int, most: int, lanes: int) -> Kernel:
    """Return the kernel (received, mask (batch x tokens) int64, places (batch x most) int32, left like it int64).

    received is (batch * heads x tokens), summed over heads here. A token's place is how many rank above it, or equal
    and before it: sorting by counting, as rows are short. left is the mask of the places.
    """

    def write() -> None:
        received = argument("received", (batch * heads, tokens))
        mask = argument("mask", (batch, tokens), "int64")
        places = argument("places", (batch, most), "int32")
        left = argument("left", (batch, most), "int64")
        with ir.parallel(0, batch) as row:
            ranks = ir.alloc_buffer((tokens,), "float32")
            order = ir.alloc_buffer((tokens,), "int32")
            with ir.serial(0, tokens) as token:
                total = Register(ir.float32(0))
                with ir.serial(0, heads) as head:
                    total.set(total.get() + received[row * heads + head, token])
                real = tirx.Select(mask[row, token] != ir.int64(0), total.get(), ir.float32(_PADDING))
                ir.buffer_store(ranks, tirx.Select(token == 0, ir.float32(_FIRST), real), [token])

            def sort(start: Expr, count: int) -> None:
                above = Register(ir.int32(0), dtype="int32", lanes=count)
                own = load(ranks, start=start, lanes=count)
                tokens_here = start if count == 1 else ir.ramp(start, 1, count)
                with ir.serial(0, tokens) as other:
                    rank = splat(ranks[other], count)
                    before = tirx.all(rank == own, splat(other, count) < tokens_here)
                    above.set(above.get() + ir.cast(tirx.any(rank > own, before), typed("int32", count)))
                for lane in range(count):
                    at = above.get() if count == 1 else tirx.Shuffle([above.get()], [tirx.const(lane, "int32")])
                    ir.buffer_store(order, start + lane, [at])

            for_spans(tokens, lanes, sort)
            with ir.serial(0, most) as place:
                ir.buffer_store(places, order[place], [row, place])
                ir.buffer_store(left, mask[row, order[place]], [row, place])

    return kernel(name, write)


def take_rows(name: str, *, batch: int, tokens: int, most: int, width: int, lanes: int) -> Kernel:
    """Return the kernel (x (batch * tokens x width), places (batch x most) int32, y (batch * most x width))."""

    def write() -> None:
        x = argument("x", (batch * tokens, width))
        places = argument("places", (batch, most), "int32")
        y = argument("y", (batch * most, width))
        with ir.parallel(0, batch * most) as row:
            source = row // most * tokens + places[row // most, row % most]

            def body(start: Expr, count: int) -> None:
                store(y, load(x, source, start=start, lanes=count), row, start=start, lanes=count)

            for_spans(width, lanes, body)

    return kernel(name, write)
