"""Layer normalization, with the residual sum in front of it where there is one."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.schedules.vectors import (
    Expr,
    Kernel,
    Reduction,
    Register,
    argument,
    for_spans,
    kernel,
    load,
    splat,
    store,
)


def norm(
    name: str, *, rows: int, width: int, epsilon: float, residual: bool, lanes: int, summed: bool = False
) -> Kernel:
    """Return the kernel (x, [residual], weight, bias, [sum], y); mean and variance in two passes over the row.

    With ``summed``, x + residual is written as well.
    """

    def write() -> None:
        x = argument("x", (rows, width))
        other = argument("residual", (rows, width)) if residual else None
        weight, bias = argument("weight", (width,)), argument("bias", (width,))
        sums = argument("sum", (rows, width)) if summed else None
        y = argument("y", (rows, width))
        held = y if sums is None else sums
        with ir.parallel(0, rows) as row:
            total = Reduction(0.0, lanes, lambda a, b: a + b)

            def gather(start: Expr, count: int) -> None:
                value = load(x, row, start=start, lanes=count)
                if other is not None:
                    value = value + load(other, row, start=start, lanes=count)
                store(held, value, row, start=start, lanes=count)
                total.take(load(held, row, start=start, lanes=count), count)

            for_spans(width, lanes, gather)
            mean = Register(0.0)
            mean.set(total.result() / ir.float32(width))
            squares = Reduction(0.0, lanes, lambda a, b: a + b)

            def square(start: Expr, count: int) -> None:
                centred = load(held, row, start=start, lanes=count) - splat(mean.get(), count)
                squares.take(centred * centred, count)

            for_spans(width, lanes, square)
            scale = Register(0.0)
            scale.set(ir.float32(1.0) / ir.sqrt(squares.result() / ir.float32(width) + ir.float32(epsilon)))

            def finish(start: Expr, count: int) -> None:
                centred = load(held, row, start=start, lanes=count) - splat(mean.get(), count)
                value = centred * splat(scale.get(), count) * load(weight, start=start, lanes=count)
                store(y, value + load(bias, start=start, lanes=count), row, start=start, lanes=count)

            for_spans(width, lanes, finish)

    return kernel(name, write)
