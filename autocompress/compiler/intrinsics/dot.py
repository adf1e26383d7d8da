"""Integer dot products: the instructions behind each ``machine.Dot``.

An ``Accumulate`` returns the sums after one more group. Activations come as a vector of ``group`` stored values,
weights as a vector of ``lanes * group`` bytes, column by column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.dots import Dot

Accumulate: TypeAlias = Callable[[Dot, Any, Any, Any], Any]
"""(dot, int32 sums, activations of one row, weights of all columns) -> int32 sums."""


def accumulate(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    """Add uint8 activations times int8 weights."""
    return _BYTES[dot.name](dot, sums, a, b)


def accumulate_nibbles(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    """Add int8 activations times weights of 0..15, which are kept as uint8; with ``dots.bytes_in_groups`` any byte."""
    return _NIBBLES[dot.name](dot, sums, a, b)


def _spread(activations: Any, lanes: int, dtype: str) -> Any:
    """Repeat a 32-bit group of activations ``lanes`` times."""
    return ir.reinterpret(ir.broadcast(ir.reinterpret(activations, dtype="int32"), lanes), dtype=dtype)


def _call(name: str, *operands: Any, dtype: str) -> Any:
    return ir.call_llvm_pure_intrin(ir.llvm_lookup_intrinsic_id(name), *operands, dtype=dtype)


def _vnni(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    # LLVM types both operands as bytes; the instruction itself reads the first as unsigned.
    name, bytes_ = f"llvm.x86.avx512.vpdpbusd.{dot.lanes * 32}", f"int8x{dot.lanes * 4}"
    return _call(name, sums, _spread(a, dot.lanes, bytes_), b, dtype=f"int32x{dot.lanes}")


def _vnni_nibbles(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    name, bytes_ = f"llvm.x86.avx512.vpdpbusd.{dot.lanes * 32}", f"int8x{dot.lanes * 4}"
    spread = _spread(a, dot.lanes, bytes_)
    return _call(name, sums, ir.reinterpret(b, dtype=bytes_), spread, dtype=f"int32x{dot.lanes}")


def _maddubs_nibbles(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    # Two byte products an int16, which 2 * 15 * 127 cannot saturate, then pairs of these.
    lanes = dot.lanes
    bytes_name, pairs_name = {
        8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
        16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    }[lanes]
    sides = ir.reinterpret(b, dtype=f"int8x{lanes * 4}"), _spread(a, lanes, f"int8x{lanes * 4}")
    pairs = _call(bytes_name, *sides, dtype=f"int16x{lanes * 2}")
    return sums + _call(pairs_name, pairs, ir.broadcast(ir.int16(1), lanes * 2), dtype=f"int32x{lanes}")


def _usdot(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    return _call("llvm.aarch64.neon.usdot.v4i32.v16i8", sums, _spread(a, 4, "int8x16"), b, dtype="int32x4")


def _sdot(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    return _call("llvm.aarch64.neon.sdot.v4i32.v16i8", sums, _spread(a, 4, "int8x16"), b, dtype="int32x4")


def _sdot_nibbles(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    return _sdot(dot, sums, a, ir.reinterpret(b, dtype="int8x16"))


def _smlal(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    # The same product of widened int32 vectors would widen and narrow the activation of every row again.
    sides = ir.broadcast(a, 4), ir.cast(b, "int16x4")
    return sums + _call("llvm.aarch64.neon.smull.v4i32", *sides, dtype="int32x4")


def _pmaddwd(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    lanes = dot.lanes
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
    sides = _spread(a, lanes, f"int16x{lanes * 2}"), ir.cast(b, f"int16x{lanes * 2}")
    return sums + _call(name, *sides, dtype=f"int32x{lanes}")


def _widening(dot: Dot, sums: Any, a: Any, b: Any) -> Any:
    return sums + ir.broadcast(ir.cast(a, "int32"), dot.lanes) * ir.cast(b, f"int32x{dot.lanes}")


_BYTES: dict[str, Accumulate] = {
    "vnni": _vnni,
    "usdot": _usdot,
    "sdot": _sdot,
    "smlal": _smlal,
    "pmaddwd": _pmaddwd,
    "widening": _widening,
}
_NIBBLES: dict[str, Accumulate] = {
    "vnni": _vnni_nibbles,
    "maddubs": _maddubs_nibbles,
    "sdot": _sdot_nibbles,
    "smlal": _smlal,
    "pmaddwd": _pmaddwd,
    "widening": _widening,
}
