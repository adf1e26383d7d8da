"""softmax(Q K^T / sqrt(width) + mask) V, one head a task, scores kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.machine import tile_rows
from autocompress.compiler.schedules.elementwise import LOG2_E, exp2
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Register,
    argument,
    first_row,
    fold,
    for_spans,
    kernel,
    load,
    multiply,
    spans,
    splat,
    store,
    transposed,
)

_MASKED = -3.0e38
_OUTSIDE = -3.4e38
"""Below a masked score, so that a row whose tokens are all masked still spreads over its tokens alone."""
_ROWS = 8
_VECTORS = 2
"""Vectors of a register tile."""


@dataclass(frozen=True)
class Heads:
    """Dimensions of the kernel: ``padded`` is ``tokens`` rounded up to whole tiles of scores."""

    batch: int
    tokens: int
    heads: int
    width: int
    lanes: int

    @property
    def block(self) -> int:
        """Columns of a tile of scores."""
        return self.lanes * min(_VECTORS, -(-self.tokens // self.lanes))

    @property
    def padded(self) -> int:
        """Columns of the score buffer."""
        return -(-self.tokens // self.block) * self.block


def attention(
    name: str, *, batch: int, tokens: int, heads: int, width: int, lanes: int, received: bool = False
) -> Kernel:
    """Return the kernel (qkv, mask (batch x tokens) int64, y, [received]).

    qkv is (batch * tokens x 3 * heads * width), y (batch * tokens x heads * width), received (batch * heads x tokens):
    what each token receives of a head's attention, summed over the real tokens that look, itself left out.
    """
    size = Heads(batch, tokens, heads, width, lanes)

    def write() -> None:
        qkv = argument("qkv", (batch * tokens, 3 * heads * width))
        mask = argument("mask", (batch, tokens), "int64")
        y = argument("y", (batch * tokens, heads * width))
        sums = argument("received", (batch * heads, tokens)) if received else None
        height = tile_rows(tokens, _ROWS)
        with ir.parallel(0, batch * heads) as task:
            sequence, head = task // heads, task % heads
            first = sequence * tokens
            offset = ir.alloc_buffer((size.padded,), "float32")
            with ir.serial(0, size.padded) as token:
                seen = mask[sequence, ir.min(token, tokens - 1)] != ir.int64(0)
                inside = tirx.Select(seen, ir.float32(0), ir.float32(_MASKED))
                ir.buffer_store(offset, tirx.Select(token < tokens, inside, ir.float32(_OUTSIDE)), [token])
            keys = ir.alloc_buffer((width, size.padded), "float32")
            _transpose_keys(size, qkv, keys, first, head)
            scores = ir.alloc_buffer((height, size.padded), "float32")
            peaks, totals = (ir.alloc_buffer((height,), "float32") for _ in range(2))
            looks = ir.alloc_buffer((size.padded,), "float32") if received else None
            if looks is not None:
                for_spans(
                    size.padded,
                    lanes,
                    lambda at, count: store(looks, splat(ir.float32(0), count), start=at, lanes=count),
                )
            with ir.serial(0, -(-tokens // height)) as tile:
                row = first + first_row(tile, tokens, height)
                _score(size, qkv, keys, scores, head, row, height)
                # In loops of their own, so that the next rows fill the time in which one row is folded.
                with ir.serial(0, height) as index:
                    _shift(size, offset, scores, peaks, index)
                with ir.serial(0, height) as index:
                    _exponentiate(size, scores, peaks, totals, index)
                _mix(size, qkv, scores, totals, y, first, head, row, height)
                if looks is not None:
                    with ir.serial(0, height) as index:
                        at = row - first + index
                        # The last tile moves up: rows that it shares with the one before it count once.
                        counts = tirx.all(at >= tile * height, mask[sequence, at] != ir.int64(0))
                        share = tirx.Select(counts, totals[index], ir.float32(0))
                        _receive(size, scores, looks, share, index, at)
            if looks is not None:
                for_spans(
                    tokens,
                    lanes,
                    lambda at, count: store(sums, load(looks, start=at, lanes=count), task, start=at, lanes=count),
                )

    return kernel(name, write)


def _transpose_keys(size: Heads, qkv: Buffer, keys: Buffer, first: Expr, head: Expr) -> None:
    start_channel = (size.heads + head) * size.width
    lanes = size.lanes
    square_tokens, square_width = size.tokens // lanes, size.width // lanes

    def move(token: Expr, channel: Expr) -> None:
        ir.buffer_store(keys, qkv[first + token, start_channel + channel], [channel, token])

    if square_tokens and square_width:
        with ir.serial(0, square_width) as across, ir.serial(0, square_tokens) as down:
            token, channel = down * lanes, across * lanes
            rows = [load(qkv, first + token + at, start=start_channel + channel, lanes=lanes) for at in range(lanes)]
            for at, column in enumerate(transposed(rows)):
                store(keys, column, channel + at, start=token, lanes=lanes)
    with ir.serial(0, size.width) as channel, ir.serial(square_tokens * lanes, size.tokens) as token:
        move(token, channel)
    with ir.serial(square_width * lanes, size.width) as channel, ir.serial(0, square_tokens * lanes) as token:
        move(token, channel)
    with ir.serial(0, size.width) as channel:
        for start, count in spans(size.padded - size.tokens, lanes):
            store(keys, splat(ir.float32(0), count), channel, start=size.tokens + start, lanes=count)


def _score(size: Heads, qkv: Buffer, keys: Buffer, scores: Buffer, head: Expr, row: Expr, height: int) -> None:
    with ir.serial(0, size.padded // size.block) as block:
        sums = multiply(
            height,
            spans(size.block, size.lanes),
            size.width,
            lambda index, k: load(qkv, row + index, start=head * size.width + k, lanes=1),
            lambda span, k: load(keys, k, start=block * size.block + span[0], lanes=span[1]),
        )
        for index, line in enumerate(sums):
            for (start, lanes), total in zip(spans(size.block, size.lanes), line, strict=True):
                store(scores, total.get(), index, start=block * size.block + start, lanes=lanes)


def _shift(size: Heads, offset: Buffer, scores: Buffer, peaks: Buffer, index: Expr) -> None:
    """Scale and mask the scores of a row, and find the highest."""
    # In powers of 2, so that one factor serves both the width and the exponential.
    lanes, scale = size.lanes, splat(ir.float32(LOG2_E * size.width**-0.5), size.lanes)
    highest = Register(ir.float32(_OUTSIDE), lanes=lanes)
    with ir.serial(0, size.padded // lanes) as at:
        score = load(scores, index, start=at * lanes, lanes=lanes) * scale + load(offset, start=at * lanes, lanes=lanes)
        store(scores, score, index, start=at * lanes, lanes=lanes)
        highest.set(ir.max(highest.get(), load(scores, index, start=at * lanes, lanes=lanes)))
    ir.buffer_store(peaks, fold(highest.get(), lanes, ir.max), [index])


def _exponentiate(size: Heads, scores: Buffer, peaks: Buffer, totals: Buffer, index: Expr) -> None:
    """Turn the scores of a row into powers, and find what they must be multiplied with to sum to one."""
    lanes, total = size.lanes, Register(ir.float32(0), lanes=size.lanes)
    with ir.serial(0, size.padded // lanes) as at:
        value = exp2(load(scores, index, start=at * lanes, lanes=lanes) - splat(peaks[index], lanes), lanes)
        store(scores, value, index, start=at * lanes, lanes=lanes)
        total.set(total.get() + load(scores, index, start=at * lanes, lanes=lanes))
    ir.buffer_store(totals, ir.float32(1) / fold(total.get(), lanes, lambda a, b: a + b), [index])


def _mix(
    size: Heads, qkv: Buffer, scores: Buffer, totals: Buffer, y: Buffer, first: Expr, head: Expr, row: Expr, height: int
) -> None:
    start_channel = (2 * size.heads + head) * size.width
    columns = spans(size.width, size.lanes)
    for at in range(0, len(columns), _VECTORS):
        part = columns[at : at + _VECTORS]
        sums = multiply(
            height,
            part,
            size.tokens,
            lambda index, k: load(scores, index, start=k, lanes=1),
            lambda span, k: load(qkv, first + k, start=start_channel + span[0], lanes=span[1]),
        )
        for index, line in enumerate(sums):
            for (start, lanes), total in zip(part, line, strict=True):
                value = total.get() * splat(totals[index], lanes)
                store(y, value, row + index, start=head * size.width + start, lanes=lanes)


def _receive(size: Heads, scores: Buffer, looks: Buffer, share: Expr, index: Expr, at: Expr) -> None:
    """Add what token ``at`` gives to the others, its powers times ``share``; it is the last that reads its scores."""
    ir.buffer_store(scores, ir.float32(0), [index, at])
    with ir.serial(0, size.padded // size.lanes) as part:
        start, lanes = part * size.lanes, size.lanes
        given = splat(share, lanes) * load(scores, index, start=start, lanes=lanes)
        store(looks, load(looks, start=start, lanes=lanes) + given, start=start, lanes=lanes)
