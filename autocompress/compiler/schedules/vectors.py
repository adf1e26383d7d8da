"""The words in which the kernels are written: functions, vector loads and stores, and sums kept in registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as ir

Expr: TypeAlias = Any
"""A TIR expression or a Python number."""
Buffer: TypeAlias = Any
Kernel: TypeAlias = Any
"""A ``tvm.tirx.PrimFunc``: inputs first, outputs last."""
Span: TypeAlias = tuple[int, int]
"""First channel and number of channels of one vector."""


def kernel(name: str, write: Callable[[], None]) -> Kernel:
    """Return the function whose arguments and body ``write`` declares."""
    with IRBuilder() as builder, ir.prim_func():
        ir.func_name(name)
        # Without it LLVM must assume that a store to the output changes the inputs, and keeps no sum in a register.
        ir.func_attr({"tirx.noalias": True})
        write()
    return builder.get()


def argument(name: str, dimensions: Sequence[int], dtype: str = "float32") -> Buffer:
    """Declare the next argument of the function that is being written."""
    return ir.arg(name, ir.buffer(tuple(dimensions), dtype))


def load(buffer: Buffer, *prefix: Expr, start: Expr, lanes: int) -> Expr:
    """Return ``lanes`` neighbours along the last dimension (a scalar for one lane)."""
    return tirx.BufferLoad(buffer, [*prefix, start if lanes == 1 else ir.ramp(start, 1, lanes)])


def store(buffer: Buffer, value: Expr, *prefix: Expr, start: Expr, lanes: int) -> None:
    """Store ``lanes`` neighbours along the last dimension."""
    ir.buffer_store(buffer, value, [*prefix, start if lanes == 1 else ir.ramp(start, 1, lanes)])


def splat(value: Expr, lanes: int) -> Expr:
    """Return a vector that repeats ``value``."""
    return value if lanes == 1 else ir.broadcast(value, lanes)


def typed(dtype: str, lanes: int) -> str:
    """Return the name of a vector type."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def spans(width: int, lanes: int) -> list[Span]:
    """Cover ``width`` channels with vectors of ``lanes``, then of ever halved width."""
    found, start = [], 0
    while start < width:
        while start + lanes > width:
            lanes //= 2
        found.append((start, lanes))
        start += lanes
    return found


def for_spans(width: int, lanes: int, body: Callable[[Expr, int], None]) -> None:
    """Write ``body(start, lanes)`` once in a loop over the full vectors and once for each narrower one at the end."""
    full = width // lanes
    if full:
        with ir.serial(0, full) as index:
            body(index * lanes, lanes)
    for start, narrow in spans(width - full * lanes, lanes):
        body(full * lanes + start, narrow)


def on_stack(dimensions: Sequence[int], dtype: str = "float32") -> Buffer:
    """Return a small buffer of the kernel; one on the heap would not become registers, and asking for it takes time."""
    keep = {"disable_lower_builtin": True}
    return ir.alloc_buffer(tuple(dimensions), dtype, scope="local", annotations=keep)


class Register:
    """A value that changes inside a loop and that LLVM keeps in a register."""

    def __init__(self, first: Expr, *, dtype: str = "float32", lanes: int = 1) -> None:
        self.buffer = on_stack((1,), typed(dtype, lanes))
        self.lanes = lanes
        self.set(splat(first, lanes))

    def set(self, value: Expr) -> None:
        """Store ``value``."""
        ir.buffer_store(self.buffer, value, [0])

    def get(self) -> Expr:
        """Return the value."""
        return tirx.BufferLoad(self.buffer, [0])


def fold(value: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Combine the lanes of a vector into a scalar, halving it each time."""
    while lanes > 1:
        lanes //= 2
        half = Register(0.0, lanes=lanes)
        wide = Register(0.0, lanes=2 * lanes)
        wide.set(value)
        low, high = (_part(wide.get(), first, lanes) for first in (0, lanes))
        half.set(combine(low, high))
        value = half.get()
    return value


def transposed(rows: Sequence[Expr]) -> list[Expr]:
    """Return the columns of a square of as many vectors as each has lanes.

    Each round interleaves the vectors of the two halves; after log2(lanes) rounds every lane is in its place.
    """
    lanes = len(rows)
    vectors = [_held(row, lanes) for row in rows]
    for _ in range(lanes.bit_length() - 1):
        pairs = zip(vectors[: lanes // 2], vectors[lanes // 2 :], strict=True)
        vectors = [_held(half, lanes) for low, high in pairs for half in _interleaved(low, high, lanes)]
    return vectors


def fold_each(vectors: Sequence[Expr], combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Combine the lanes of each of as many vectors as each has lanes; lane i of the result is that of vector i.

    Each round lays two vectors side by side and halves both at once, with half the instructions of ``fold`` for each.
    """
    lanes, found = len(vectors), [_held(vector, len(vectors)) for vector in vectors]
    while len(found) > 1:
        pairs = zip(found[: len(found) // 2], found[len(found) // 2 :], strict=True)
        found = [_held(combine(*_interleaved(low, high, lanes)), lanes) for low, high in pairs]
    return found[0]


def store_first(buffer: Buffer, value: Expr, *prefix: Expr, start: Expr, count: int, lanes: int) -> None:
    """Store the first ``count`` lanes of a vector along the last dimension."""
    for first, width in spans(count, lanes):
        part = value if width == lanes else _part(value, first, width)
        store(buffer, part, *prefix, start=start + first, lanes=width)


def _held(value: Expr, lanes: int) -> Expr:
    register = Register(ir.float32(0), lanes=lanes)
    register.set(value)
    return register.get()


def _interleaved(low: Expr, high: Expr, lanes: int) -> list[Expr]:
    order = [index for lane in range(lanes) for index in (lane, lanes + lane)]
    return [
        tirx.Shuffle([low, high], [tirx.const(index, "int32") for index in half])
        for half in (order[:lanes], order[lanes:])
    ]


def _part(value: Expr, first: int, lanes: int) -> Expr:
    return tirx.Shuffle([value], [tirx.const(first + lane, "int32") for lane in range(lanes)])


class Reduction:
    """A sum or an extreme over a row: one register for full vectors, one for the scalars at the end."""

    def __init__(self, first: float, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> None:
        self.vector = Register(ir.float32(first), lanes=lanes)
        self.scalar = Register(ir.float32(first))
        self.combine = combine

    def take(self, value: Expr, lanes: int) -> None:
        """Add a vector of the full width, or a narrower one."""
        if lanes == self.vector.lanes:
            self.vector.set(self.combine(self.vector.get(), value))
        else:
            self.scalar.set(self.combine(self.scalar.get(), fold(value, lanes, self.combine)))

    def result(self) -> Expr:
        """Return the total as a scalar."""
        return self.combine(self.scalar.get(), fold(self.vector.get(), self.vector.lanes, self.combine))


@contextmanager
def parallel_tiles(rows: int, height: int, outer: int) -> Iterator[tuple[Expr, Expr]]:
    """Run tiles in parallel and give (outer index, first row); the last tile moves up so that it stays inside."""
    tiles = -(-rows // height)
    with ir.parallel(0, outer * tiles) as index:
        yield index // tiles, first_row(index % tiles, rows, height)


def ask_for_next(w: Buffer, panel: Expr, row: Expr, step: Expr, *, rows: int, height: int) -> None:
    """Ask for a part of the next panel (``w`` is panels x steps x width) while ``step`` of the tile at ``row`` runs.

    All steps of all tiles of one panel together ask for the whole next one, in order. It goes into the second cache:
    the first is full.
    """
    count, steps, width = (int(size) for size in w.shape)
    start = (row // height * steps + step) * width // -(-rows // height)
    address = ir.address_of(w[ir.min(panel + 1, count - 1), start // width, start % width])
    name, read, second_cache, data = ir.llvm_lookup_intrinsic_id("llvm.prefetch.p0"), 0, 2, 1
    ir.evaluate(ir.call_llvm_intrin(name, address, *map(ir.int32, (read, second_cache, data)), dtype="void"))


def first_row(tile: Expr, rows: int, height: int) -> Expr:
    """Return the first row of a tile; rows that two tiles share get the same values from both."""
    return tile * height if rows % height == 0 else ir.min(tile * height, rows - height)


def multiply(
    rows: int,
    columns: Sequence[Span],
    depth: int,
    a: Callable[[int, Expr], Expr],
    b: Callable[[Span, Expr], Expr],
    beside: Callable[[Expr], None] = lambda _: None,
) -> list[list[Register]]:
    """Write the f32 sums over ``depth`` of a(row, k) * b(span, k), all kept in registers; one list a row.

    ``beside(k)`` is written into every step.
    """
    sums = [[Register(ir.float32(0), lanes=lanes) for _, lanes in columns] for _ in range(rows)]
    with ir.serial(0, depth) as k:
        beside(k)
        for row in range(rows):
            for span, total in zip(columns, sums[row], strict=True):
                total.set(total.get() + splat(a(row, k), total.lanes) * b(span, k))
    return sums
