"""Activations on vectors, with polynomials in place of calls into the C library; sums; rows that the head reads."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.graph import Activation
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

LOG2_E = 1.44269504088896341
_EXP2 = (1.32764713e-3, 9.67554096e-3, 5.55071309e-2, 2.40221202e-1, 6.93146944e-1, 1.00000012)
"""2^r for |r| <= 1/2, highest power first; fitted for the smallest largest relative error (Lawson's iteration)."""
_PHI_EDGE = 5.25
_PHI = (
    *(9.80060315e-4, -2.82180635e-3, 3.09494324e-3, -3.62199312e-3, 7.90434610e-3, -1.36534590e-2, 1.88292228e-2),
    *(-2.48425100e-2, 3.19679826e-2, -3.97821032e-2, 4.96504754e-2, -6.71263412e-2, 1.34659275e-1),
)
"""(Phi(x) - 1/2) / x in powers of 2 x^2 / edge^2 - 1 for |x| up to the edge, where it is 1/2 / edge; highest power
first. Fitted so that the largest error of x * Phi(x) is smallest (Lawson's iteration on Chebyshev nodes)."""


def exp2(x: Expr, lanes: int) -> Expr:
    """Return 2^x for x below 128, with a relative error below 3e-7; about 2^-126 for anything below -126."""

    def f(value: float) -> Expr:
        return splat(ir.float32(value), lanes)

    x = ir.max(x, f(-126.0))
    power = ir.nearbyint(x)
    series = f(_EXP2[0])
    for factor in _EXP2[1:]:
        series = series * (x - power) + f(factor)
    exponent = ir.cast(power, typed("int32", lanes)) << splat(ir.int32(23), lanes)
    return ir.reinterpret(ir.reinterpret(series, dtype=typed("int32", lanes)) + exponent, dtype=typed("float32", lanes))


def normal_share(x: Expr, lanes: int) -> Expr:
    """Return the standard normal distribution function Phi, 0 and 1 beyond +-5.25, such that x * Phi(x) is near.

    One polynomial and no division: half the instructions of Phi by way of erf and exp.
    """

    def f(value: float) -> Expr:
        return splat(ir.float32(value), lanes)

    inside = ir.max(ir.min(x, f(_PHI_EDGE)), f(-_PHI_EDGE))
    at = inside * inside * f(2 / _PHI_EDGE**2) - f(1.0)
    series = f(_PHI[0])
    for factor in _PHI[1:]:
        series = series * at + f(factor)
    return series * inside + f(0.5)


def activate(x: Expr, activation: Activation, lanes: int) -> Expr:
    """Return the activation of a vector; the absolute error of gelu (erf form) and tanh is below 2e-6."""

    def f(value: float) -> Expr:
        return splat(ir.float32(value), lanes)

    if activation == "relu":
        return ir.max(x, f(0.0))
    if activation == "tanh":
        return f(1.0) - f(2.0) / (exp2(ir.min(x * f(2 * LOG2_E), f(126.0)), lanes) + f(1.0))
    return x * normal_share(x, lanes)


def add(name: str, *, rows: int, period: int, width: int, lanes: int) -> Kernel:
    """Write z = x + y, x and z (rows x width), y (period x width) as often as it takes."""

    def write() -> None:
        x, y, z = argument("x", (rows, width)), argument("y", (period, width)), argument("z", (rows, width))
        with ir.parallel(0, rows) as row:

            def body(start: Expr, count: int) -> None:
                value = load(x, row, start=start, lanes=count) + load(y, row % period, start=start, lanes=count)
                store(z, value, row, start=start, lanes=count)

            for_spans(width, lanes, body)

    return kernel(name, write)


def first_rows(name: str, *, batch: int, tokens: int, width: int, lanes: int) -> Kernel:
    """Write the first row of each sequence: y (batch x width) of x (batch * tokens x width)."""

    def write() -> None:
        x, y = argument("x", (batch * tokens, width)), argument("y", (batch, width))
        with ir.serial(0, batch) as row:

            def body(start: Expr, count: int) -> None:
                store(y, load(x, row * tokens, start=start, lanes=count), row, start=start, lanes=count)

            for_spans(width, lanes, body)

    return kernel(name, write)


def first_and_mean(name: str, *, batch: int, tokens: int, learned: int, width: int, lanes: int) -> Kernel:
    """Write y (batch x 2 * width): the first row of each sequence of x, and the mean of those behind the learned."""

    def write() -> None:
        x, y = argument("x", (batch * tokens, width)), argument("y", (batch, 2 * width))
        with ir.parallel(0, batch) as row:

            def body(start: Expr, count: int) -> None:
                store(y, load(x, row * tokens, start=start, lanes=count), row, start=start, lanes=count)
                total = Register(ir.float32(0), lanes=count)
                with ir.serial(learned, tokens) as token:
                    total.set(total.get() + load(x, row * tokens + token, start=start, lanes=count))
                mean = total.get() * splat(ir.float32(1 / (tokens - learned)), count)
                store(y, mean, row, start=width + start, lanes=count)

            for_spans(width, lanes, body)

    return kernel(name, write)
