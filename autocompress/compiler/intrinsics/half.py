"""Products of 16-bit floats: the instructions behind each ``dots.HalfDot``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import HalfDot

Accumulate: TypeAlias = Callable[[HalfDot, Any, Any, Any], Any]
Unpack: TypeAlias = Callable[[HalfDot, Any, int], Any]


def accumulate(dot: HalfDot, sums: Any, a: Any, b: Any) -> Any:
    """Return the sums after one more group.

    Args:
        dot: The product.
        sums: Vector of ``lanes`` f32, or f16 where ``dot.longest`` is not 0.
        a: Activations of one row, a vector of ``group`` stored values (a scalar for 1).
        b: Weights as ``unpack`` returns them.
    """
    if dot.name in _INSTRUCTIONS:
        pair = ir.broadcast(ir.reinterpret(a, dtype="int32"), dot.lanes)
        return ir.call_pure_extern(f"float32x{dot.lanes}", f"bf16_dot_{dot.lanes}", sums, b, pair)
    return sums + ir.broadcast(a, dot.lanes) * b


def unpack(dot: HalfDot, b: Any, at: int) -> Any:
    """Return what is multiplied with neighbours ``at`` to ``at + group``.

    Out of a vector of ``lanes * packed`` weights, column by column.
    """
    return _UNPACK[dot.name](dot, b, at)


def narrow(dot: HalfDot, x: Any, lanes: int) -> Any:
    """Return a vector of f32 (a scalar for one lane) in the ``stored`` type, halves to even."""
    if dot.stored == "float32":
        return x
    suffix = "" if lanes == 1 else f"x{lanes}"
    if dot.stored == "float16":
        return ir.cast(x, f"float16{suffix}")
    return ir.call_pure_extern(f"uint16{suffix}", f"bf16_narrow_{lanes}", x)


def code(dot: HalfDot) -> str:
    """Return the LLVM functions that ``accumulate`` and ``narrow`` call, empty where they call none.

    They hold instructions on a type that TVM keeps from LLVM: it turns every bfloat16 into f32.
    """
    if dot.name not in _INSTRUCTIONS:
        return ""
    narrowing = "".join(_narrow(1 << power) for power in range(dot.lanes.bit_length()))
    return _dot(_INSTRUCTIONS[dot.name].format(bits=dot.lanes * 32), dot.lanes) + narrowing


_INSTRUCTIONS = {
    "dpbf16ps": "llvm.x86.avx512bf16.dpbf16ps.{bits}",
    "bfdot": "llvm.aarch64.neon.bfdot.v4f32.v8bf16",
}


def _narrow(lanes: int) -> str:
    """Return the LLVM function that rounds f32 to bfloat16: one instruction where there is one."""
    wide, narrow, bits = (kind if lanes == 1 else f"<{lanes} x {kind}>" for kind in ("float", "bfloat", "i16"))
    return f"""
define {bits} @bf16_narrow_{lanes}({wide} %x) {{
  %y = fptrunc {wide} %x to {narrow}
  %bits = bitcast {narrow} %y to {bits}
  ret {bits} %bits
}}"""


def _dot(instruction: str, lanes: int) -> str:
    """Return the LLVM function of an instruction that adds two bfloat16 products a lane."""
    sums, pairs, words = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{lanes} x i32>"
    return f"""
declare {sums} @{instruction}({sums}, {pairs}, {pairs})
define {sums} @bf16_dot_{lanes}({sums} %sums, {words} %b, {words} %a) {{
  %weights = bitcast {words} %b to {pairs}
  %activations = bitcast {words} %a to {pairs}
  %result = call {sums} @{instruction}({sums} %sums, {pairs} %weights, {pairs} %activations)
  ret {sums} %result
}}"""


def _words(dot: HalfDot, b: Any, at: int) -> Any:
    return ir.reinterpret(b, dtype=f"int32x{dot.lanes}")


def _shifted(dot: HalfDot, b: Any, at: int) -> Any:
    high = ir.cast(b, f"int32x{dot.lanes}") << ir.broadcast(ir.int32(16), dot.lanes)
    return ir.reinterpret(high, dtype=f"float32x{dot.lanes}")


def _shifted_pairs(dot: HalfDot, b: Any, at: int) -> Any:
    pairs, lanes = _words(dot, b, at), dot.lanes
    high = pairs & ir.broadcast(ir.int32(-0x10000), lanes) if at else pairs << ir.broadcast(ir.int32(16), lanes)
    return ir.reinterpret(high, dtype=f"float32x{lanes}")


_UNPACK: dict[str, Unpack] = {
    "dpbf16ps": _words,
    "bfdot": _words,
    "fmla": lambda dot, b, at: b,
    "shifted": _shifted,
    "shifted_pairs": _shifted_pairs,
}
