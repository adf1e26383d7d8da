"""Rows of the token embedding, stored at 32, 8 or 4 bits, plus the position embedding."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.graph import Array, groups
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


def nibble_rows(values: Array) -> Array:
    """Pack (rows x width) values -8..7 into (rows x groups * 16) bytes.

    Byte j of a group holds channel j in its low and channel 16 + j in its high half, each plus 8.
    """
    rows, width = values.shape
    padded = np.full((rows, groups(width) * WEIGHT_GROUP), 8, np.uint8)
    padded[:, :width] = (values.astype(np.int16) + 8).astype(np.uint8)
    halves = padded.reshape(rows, -1, 2, _HALF)
    return np.ascontiguousarray(halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(rows, -1)


def embed(name: str, *, bits: Bits, tokens: int, vocabulary: int, width: int, lanes: int) -> Kernel:
    """Return the kernel (ids (1 x tokens) int64, word, [scale], position (tokens x width), y)."""

    def write() -> None:
        ids = argument("ids", (1, tokens), "int64")
        columns, dtype = {32: (width, "float32"), 8: (width, "int8"), 4: (groups(width) * _HALF, "uint8")}[bits]
        word = argument("word", (vocabulary, columns), dtype)
        scales = {32: 0, 8: 1, 4: groups(width)}[bits]
        scale = argument("scale", (vocabulary, scales)) if scales else None
        position = argument("position", (tokens, width))
        y = argument("y", (tokens, width))
        with ir.parallel(0, tokens) as row:
            identity = ids[0, row]
            if bits == 4:
                _unpack(word, scale, y, identity, row, width)

            def body(start: Expr, count: int) -> None:
                value = load(y if bits == 4 else word, row if bits == 4 else identity, start=start, lanes=count)
                if bits == 8:
                    value = ir.cast(value, typed("float32", count)) * splat(
                        load(scale, identity, start=0, lanes=1), count
                    )
                store(y, value + load(position, row, start=start, lanes=count), row, start=start, lanes=count)

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
