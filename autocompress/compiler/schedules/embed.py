"""What layers read: rows of the token embedding, stored at 32, 16, 8 or 4 bits; patches behind learned tokens."""

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


def patches(name: str, *, batch: int, channels: int, height: int, width: int, patch: int, lanes: int) -> Kernel:
    """Return the kernel (pixels (batch x channels x height x width), y (batch * patches x channels * patch^2))."""
    down, across = height // patch, width // patch

    def write() -> None:
        pixels = argument("pixels", (batch, channels, height, width))
        y = argument("y", (batch * down * across, channels * patch * patch))
        with ir.parallel(0, batch * down * across) as row:
            image, top, left = row // (down * across), row // across % down * patch, row % across * patch
            with ir.serial(0, channels * patch) as line:

                def body(start: Expr, count: int) -> None:
                    at = (image, line // patch, top + line % patch)
                    values = load(pixels, *at, start=left + start, lanes=count)
                    store(y, values, row, start=line * patch + start, lanes=count)

                for_spans(patch, lanes, body)

    return kernel(name, write)


def behind_learned(name: str, *, batch: int, tokens: int, learned: int, width: int, lanes: int) -> Kernel:
    """Return the kernel (x, position (tokens x width), y (batch * tokens x width)).

    x is (batch * (tokens - learned) x width). The learned tokens are the first rows of ``position``; what follows are
    sums.
    """
    rest = tokens - learned

    def write() -> None:
        x, position = argument("x", (batch * rest, width)), argument("position", (tokens, width))
        y = argument("y", (batch * tokens, width))
        with ir.serial(0, batch * learned) as row:

            def first(start: Expr, count: int) -> None:
                value = load(position, row % learned, start=start, lanes=count)
                store(y, value, row // learned * tokens + row % learned, start=start, lanes=count)

            for_spans(width, lanes, first)
        with ir.parallel(0, batch * rest) as row:
            token = learned + row % rest

            def add(start: Expr, count: int) -> None:
                value = load(x, row, start=start, lanes=count) + load(position, token, start=start, lanes=count)
                store(y, value, row // rest * tokens + token, start=start, lanes=count)

            for_spans(width, lanes, add)

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
