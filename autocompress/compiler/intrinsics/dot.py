"""Integer dot products: how a target adds the products of a few neighbouring 8-bit values to a vector of int32 sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tvm.script.ir_builder import tirx as ir

Accumulate = Callable[[Any, Any, Any], Any]
"""(int32 sums, activations of one row, weights of all columns) -> int32 sums."""


@dataclass(frozen=True)
class Dot:
    """One way to multiply uint8 activations with int8 weights exactly.

    Attributes:
        name: Part of the kernel's name.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one instruction multiplies and adds.
        stored: Type in which the activations are kept.
        shift: Subtracted from the uint8 activation before it is stored.
        accumulate: Returns the sums after one more group; activations come as a vector of ``group`` stored values,
            weights as a vector of ``lanes * group`` int8, column by column.
    """

    name: str
    lanes: int
    group: int
    stored: str
    shift: int
    accumulate: Accumulate = field(repr=False)


def _spread(activations: Any, lanes: int, dtype: str) -> Any:
    """Repeat a 32-bit group of activations ``lanes`` times."""
    return ir.reinterpret(ir.broadcast(ir.reinterpret(activations, dtype="int32"), lanes), dtype=dtype)


def _instruction(name: str, lanes: int, sums: Any, a: Any, b: Any) -> Any:
    return ir.call_llvm_pure_intrin(ir.llvm_lookup_intrinsic_id(name), sums, a, b, dtype=f"int32x{lanes}")


def vnni(lanes: int) -> Dot:
    """AVX-512 VNNI or AVX-VNNI: four uint8 x int8 products a lane."""
    name = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        # LLVM types both operands as bytes; the instruction itself reads the first as unsigned.
        return _instruction(name, lanes, sums, _spread(a, lanes, f"int8x{lanes * 4}"), b)

    return Dot(f"vnni{lanes}", lanes, 4, "uint8", 0, accumulate)


def usdot() -> Dot:
    """Arm I8MM: four uint8 x int8 products a lane."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        return _instruction("llvm.aarch64.neon.usdot.v4i32.v16i8", 4, sums, _spread(a, 4, "int8x16"), b)

    return Dot("usdot", 4, 4, "uint8", 0, accumulate)


def sdot() -> Dot:
    """Arm DotProd: four int8 x int8 products a lane, so activations are stored less 128."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        return _instruction("llvm.aarch64.neon.sdot.v4i32.v16i8", 4, sums, _spread(a, 4, "int8x16"), b)

    return Dot("sdot", 4, 4, "int8", 128, accumulate)


def smlal() -> Dot:
    """Any 64-bit Arm: one int16 product a lane."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        # The same product of widened int32 vectors would widen and narrow the activation of every row again.
        multiply = ir.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smull.v4i32")
        product = ir.call_llvm_pure_intrin(multiply, ir.broadcast(a, 4), ir.cast(b, "int16x4"), dtype="int32x4")
        return sums + product

    return Dot("smlal", 4, 1, "int16", 0, accumulate)


def pmaddwd(lanes: int) -> Dot:
    """SSE2, AVX2 or AVX-512BW: two int16 products a lane, which cannot saturate for 8-bit values."""
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        wide = ir.cast(b, f"int16x{lanes * 2}")
        call = ir.llvm_lookup_intrinsic_id(name)
        pair = _spread(a, lanes, f"int16x{lanes * 2}")
        return sums + ir.call_llvm_pure_intrin(call, pair, wide, dtype=f"int32x{lanes}")

    return Dot(f"pmaddwd{lanes}", lanes, 2, "int16", 0, accumulate)


def widening(lanes: int) -> Dot:
    """Any target: both sides widened to int32 and multiplied."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        return sums + ir.broadcast(ir.cast(a, "int32"), lanes) * ir.cast(b, f"int32x{lanes}")

    return Dot(f"widening{lanes}", lanes, 1, "uint8", 0, accumulate)


@dataclass(frozen=True)
class NibbleDot:
    """One way to multiply int8 activations (-127..127) with weights of 0..15 exactly.

    Attributes:
        name: Part of the kernel's name.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one step multiplies and adds.
        stored: Type in which the activations are kept.
        accumulate: As in ``Dot``, with weights as a vector of uint8.
    """

    name: str
    lanes: int
    group: int
    stored: str
    accumulate: Accumulate = field(repr=False)


def nibble_vnni(lanes: int) -> NibbleDot:
    """AVX-512 VNNI or AVX-VNNI, the weights on the unsigned side."""
    name = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        bytes_ = f"int8x{lanes * 4}"
        return _instruction(name, lanes, sums, ir.reinterpret(b, dtype=bytes_), _spread(a, lanes, bytes_))

    return NibbleDot(f"vnni{lanes}", lanes, 4, "int8", accumulate)


def nibble_maddubs(lanes: int) -> NibbleDot:
    """AVX2 or AVX-512BW: two byte products an int16, which 2 * 15 * 127 cannot saturate, then pairs of these."""
    bytes_name, pairs_name = {
        8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
        16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    }[lanes]

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        sides = ir.reinterpret(b, dtype=f"int8x{lanes * 4}"), _spread(a, lanes, f"int8x{lanes * 4}")
        pairs = ir.call_llvm_pure_intrin(ir.llvm_lookup_intrinsic_id(bytes_name), *sides, dtype=f"int16x{lanes * 2}")
        ones = ir.broadcast(ir.int16(1), lanes * 2)
        call = ir.llvm_lookup_intrinsic_id(pairs_name)
        return sums + ir.call_llvm_pure_intrin(call, pairs, ones, dtype=f"int32x{lanes}")

    return NibbleDot(f"maddubs{lanes}", lanes, 4, "int8", accumulate)


def nibble_sdot() -> NibbleDot:
    """Arm DotProd: weights of 0..15 fit the signed side as well."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        signed = ir.reinterpret(b, dtype="int8x16")
        return _instruction("llvm.aarch64.neon.sdot.v4i32.v16i8", 4, sums, _spread(a, 4, "int8x16"), signed)

    return NibbleDot("sdot", 4, 4, "int8", accumulate)


def nibble_widening(dot: Dot) -> NibbleDot:
    """Any ``dot`` that widens both sides anyway (``pmaddwd``, ``smlal``, ``widening``): so does it with nibbles."""
    stored = "int8" if dot.stored == "uint8" else dot.stored
    return NibbleDot(dot.name, dot.lanes, dot.group, stored, dot.accumulate)
