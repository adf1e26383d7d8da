"""How much memory a program takes while it runs, to the byte, before anything is compiled.

The storage of a compiled library is planned by TVM's pass ``StaticPlanBlockMemory``; ``plan`` decides as it does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autocompress.compiler.machine import tile_rows
from autocompress.compiler.program import Kernel, Program

MATCH_RANGE = 16
"""A value takes no free storage that is more than this many times larger or smaller."""
STACK_BYTES = 1024
"""Buffers of a kernel that are smaller than this lie on the stack."""


@dataclass(frozen=True)
class Plan:
    """Where the values of a program live.

    Attributes:
        storage_bytes: Size of each storage, in the order of first use.
        places: Name of a value -> index of the storage that holds it. The output, which its reader keeps, shares none.
    """

    storage_bytes: tuple[int, ...]
    places: Mapping[str, int]


def plan(program: Program) -> Plan:
    """Return the storage of every value that a call of ``program`` writes.

    A storage is free once the last call that reads its value has run. Values of the same type take it again: the
    smallest that is large enough or, where there is none, the largest, which grows.
    """
    last = {tensor.name: index for index, call in enumerate(program.calls) for tensor in (*call.outputs, *call.inputs)}
    last[program.output.name] = len(program.calls)
    sizes: list[int] = []
    places: dict[str, int] = {}
    free: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, call in enumerate(program.calls):
        for tensor in call.outputs:
            name, size_bytes = tensor.name, tensor.size_bytes
            reused = None if name == program.output.name else _take(free[tensor.dtype], size_bytes)
            if reused is None:
                places[name] = len(sizes)
                sizes.append(size_bytes)
            else:
                places[name] = reused
                sizes[reused] = max(sizes[reused], size_bytes)
        for tensor in (*call.inputs, *call.outputs):
            if tensor.name in places and last[tensor.name] == index:
                last[tensor.name] = -1
                place = places[tensor.name]
                insort(free[tensor.dtype], (sizes[place], place), key=_size)
    return Plan(tuple(sizes), places)


def _size(entry: tuple[int, int]) -> int:
    return entry[0]


def _take(free: list[tuple[int, int]], size_bytes: int) -> int | None:
    """Take from ``free`` (ascending sizes, with the index of the storage) what a value of ``size_bytes`` is given."""
    at = bisect_left(free, size_bytes, key=_size)
    if at < len(free) and free[at][0] <= size_bytes * MATCH_RANGE:
        return free.pop(at)[1]
    if at and free[at - 1][0] >= size_bytes // MATCH_RANGE:
        return free.pop(at - 1)[1]
    return None


def activation_bytes(program: Program) -> int:
    """Return the bytes of all storage that the compiled program allocates for its values, the output's included."""
    return sum(plan(program).storage_bytes)


def constant_bytes(program: Program) -> int:
    """Return the bytes of all constants, without the gaps that align them in the file."""
    return sum(constant.tensor.size_bytes for constant in program.constants)


@dataclass(frozen=True)
class Scratch:
    """Heap memory that a kernel asks the runtime for while it runs.

    Attributes:
        call_bytes: Asked for by the calling thread, for the whole call.
        task_bytes: Asked for by a task, or by some of them, and given back at its end.
        tasks: Iterations of the parallel loop, dealt out to the threads in equal runs.
    """

    call_bytes: int
    task_bytes: int
    tasks: int

    def busy(self, threads: int) -> int:
        """Return how many of ``threads`` get a task."""
        return -(-self.tasks // -(-self.tasks // threads))


def scratch(kernel: Kernel) -> Scratch:
    """Return the heap memory of ``kernel``; what is missing from ``SCRATCH`` needs none."""
    ask = SCRATCH.get(kernel.family)
    return Scratch(0, 0, 1) if ask is None else ask(**dict(kernel.size))


def workspace_bytes(program: Program, threads: int) -> int:
    """Return the heap memory that kernels hold on ``threads`` threads beside the values.

    Each thread keeps what it once asked for and takes it again, so this is the sum over threads of the most that any
    kernel asks for at once. The runtime rounds every buffer up to whole pages of 4 KiB.
    """
    most = [0] * threads
    for kernel in program.names():
        need = scratch(kernel)
        most[0] = max(most[0], need.call_bytes + need.task_bytes)
        for thread in range(1, need.busy(threads)):
            most[thread] = max(most[thread], need.task_bytes)
    return sum(most)


def _heap(*sizes: int) -> int:
    return sum(size for size in sizes if size >= STACK_BYTES)


def _attention(*, batch: int, tokens: int, heads: int, width: int, lanes: int, received: bool = False) -> Scratch:
    # Mask, keys, the scores of a tile, their sums, what is received; columns are rounded up to tiles of two vectors.
    block = lanes * min(2, -(-tokens // lanes))
    padded, height = -(-tokens // block) * block, tile_rows(tokens, 8)
    sizes = (4 * padded, 4 * width * padded, 4 * height * padded, 4 * height, 4 * padded * received)
    return Scratch(0, _heap(*sizes), batch * heads)


def _quantize(*, rows: int, **_: Any) -> Scratch:
    # The extremes of every row.
    return Scratch(_heap(4 * rows, 4 * rows), 0, rows)


def _most_significant(*, batch: int, tokens: int, **_: Any) -> Scratch:
    # Ranks and order.
    return Scratch(0, _heap(4 * tokens, 4 * tokens), batch)


SCRATCH: dict[str, Callable[..., Scratch]] = {
    "attention": _attention,
    "most_significant": _most_significant,
    "quantize": _quantize,
}
"""Family of kernels -> what one asks for, of its sizes."""
