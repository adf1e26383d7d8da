"""The most that one core can do, multiplying in registers and reading, in kernels like those of the compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.intrinsics.dot import accumulate
from autocompress.compiler.machine import Machine
from autocompress.compiler.schedules.vectors import Register, argument, kernel, load, store
from benchmarks.contenders import Contender, of_kernel

STEPS = 20_000
READERS = 8
"""Sums that a reading loop keeps apart."""


def multiply_f32(machine: Machine) -> Contender:
    """Return f32 multiply-adds on independent sums; all operands stay in registers."""
    chains, lanes = (24 if machine.registers >= 32 else 12), machine.lanes

    def write() -> None:
        x, y = argument("x", (2, lanes)), argument("y", (chains, lanes))
        factor, addend = (_held(load(x, at, start=0, lanes=lanes), "float32", lanes) for at in range(2))
        sums = [Register(ir.float32(at), lanes=lanes) for at in range(chains)]
        with ir.serial(0, STEPS):
            for total in sums:
                total.set(total.get() * factor.get() + addend.get())
        _keep(sums, y)

    operands = np.array([[0.9] * lanes, [0.1] * lanes], np.float32)
    written = kernel("kernel", write)
    return of_kernel(written, [operands], (chains, lanes), "float32", operations=2 * STEPS * chains * lanes)


def multiply_i8(machine: Machine) -> Contender:
    """Return integer dot products on independent sums, each of weights in a register with activations of the step.

    Activations must change, or what a dot product of two instructions multiplies would be moved out of the loop.
    """
    dot, (rows, vectors) = machine.dot, ((4, 4) if machine.registers >= 32 else (2, 4))
    bytes_ = dot.lanes * dot.group

    def write() -> None:
        a = argument("a", (rows, 64 * dot.group), dot.stored)
        b = argument("b", (vectors, bytes_), "int8")
        y = argument("y", (rows * vectors, dot.lanes), "int32")
        held = [_held(load(b, at, start=0, lanes=bytes_), "int8", bytes_) for at in range(vectors)]
        sums = [Register(ir.int32(0), dtype="int32", lanes=dot.lanes) for _ in range(rows * vectors)]
        with ir.serial(0, STEPS // 64), ir.serial(0, 64) as step:
            for row in range(rows):
                group = load(a, row, start=step * dot.group, lanes=dot.group)
                for at, weights in enumerate(held):
                    total = sums[row * vectors + at]
                    total.set(accumulate(dot, total.get(), group, weights.get()))
        _keep(sums, y)

    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(0, 100, (rows, 64 * dot.group)).astype(dot.stored),
        rng.integers(-128, 128, (vectors, bytes_), dtype=np.int8),
    ]
    operations = 2 * (STEPS // 64) * 64 * rows * vectors * bytes_
    written = kernel("kernel", write)
    return of_kernel(written, inputs, (rows * vectors, dot.lanes), "int32", operations=operations)


def read(machine: Machine, size_bytes: int) -> Contender:
    """Return the reading of ``size_bytes`` once: what a product with one row cannot be faster than."""
    lanes = machine.lanes
    lines = size_bytes // (4 * lanes * READERS)

    def write() -> None:
        x, y = argument("x", (lines, READERS * lanes)), argument("y", (READERS, lanes))
        sums = [Register(ir.float32(0), lanes=lanes) for _ in range(READERS)]
        with ir.serial(0, lines) as line:
            for at, total in enumerate(sums):
                total.set(total.get() + load(x, line, start=at * lanes, lanes=lanes))
        _keep(sums, y)

    operations = 4 * lines * READERS * lanes
    written = kernel("kernel", write)
    values = np.ones((lines, READERS * lanes), np.float32)
    return of_kernel(written, [values], (READERS, lanes), "float32", operations=operations)


def _held(value: Any, dtype: str, lanes: int) -> Register:
    register = Register(ir.float32(0) if dtype == "float32" else ir.int8(0), dtype=dtype, lanes=lanes)
    register.set(value)
    return register


def _keep(sums: list[Register], y: Any) -> None:
    for at, total in enumerate(sums):
        store(y, total.get(), at, start=0, lanes=total.lanes)
