"""Rows of the token embedding, stored at 32, 16, 8 or 4 bits."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.graph import groups
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    argument,
    for_spans,
    kernel,
    load,
    splat,
    store,
    typed,
)
from autocompress.shape import WEIGHT_GROUP, Bits

_HALF = WEIGHT_GROUP // 2


def lookup(name: str, *, bits: Bits, batch: int, tokens: int, vocabulary: int, width: int, lanes: int) -> Kernel:
    """Return the kernel (ids (batch x tokens) int64, word, [scale], y (batch * tokens x width))."""

    def write() -> None:
        ids = argument("ids", (batch, tokens), "int64")
        columns, dtype = {
            32: (width, "float32"),
            16: (width, "uint16"),
            8: (width, "int8"),
            4: (groups(width) * _HALF, "uint8"),
        }[bits]
        word = argument("word", (vocabulary, columns), dtype)
        scales = {32: 0, 16: 0, 8: 1, 4: groups(width)}[bits]
        scale = argument("scale", (vocabulary, scales)) if scales else None
        y = argument("y", (batch * tokens, width))
        with ir.parallel(0, batch * tokens) as row:
            identity = ids[row // tokens, row % tokens]
            if bits == 4:
                _unpack(word, scale, y, identity, row, width)
                return

            def body(start: Expr, count: int) -> None:
                value = load(word, identity, start=start, lanes=count)
                if bits == 16:
                    high = ir.cast(value, typed("int32", count)) << splat(ir.int32(16), count)
                    value = ir.reinterpret(high, dtype=typed("float32", count))
                if bits == 8:
                    step = splat(load(scale, identity, start=0, lanes=1), count)
                    value = ir.cast(value, typed("float32", count)) * step
                store(y, value, row, start=start, lanes=count)

            for_spans(width, lanes, body)

    return kernel(name, write)


def _unpack(word: Buffer, scale: Buffer, y: Buffer, identity: Expr, row: Expr, width: int) -> None:
    def half(group: Expr, shift: int, count: int) -> None:
        start = group * WEIGHT_GROUP + shift * 4
        for_spans(count, _HALF, lambda at, lanes: one(group, start + at, at, shift, lanes))

    def one(group: Expr, channel: Expr, at: Expr, shift: int, lanes: int) -> None:
        packed = load(word, identity, start=group * _HALF + at, lanes=lanes)
        store(y, nibbles(packed, shift, lanes) * splat(scale[identity, group], lanes), row, start=channel, lanes=lanes)

    full, rest = divmod(width, WEIGHT_GROUP)
    if full:
        with ir.serial(0, full) as group:
            half(group, 0, _HALF)
            half(group, 4, _HALF)
    half(full, 0, min(rest, _HALF))
    half(full, 4, max(0, rest - _HALF))


def nibbles(packed: Expr, shift: int, lanes: int) -> Expr:
    """Return the low (shift 0) or high (shift 4) half of each byte, less 8, as f32."""
    wide = ir.cast(packed, typed("int32", lanes)) >> splat(ir.int32(shift), lanes)
    return ir.cast((wide & splat(ir.int32(15), lanes)) - splat(ir.int32(8), lanes), typed("float32", lanes))
