"""Products of 16-bit floats: how a target adds those of a few neighbouring values to a vector of sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tvm.script.ir_builder import tirx as ir

Accumulate = Callable[[Any, Any, Any], Any]
"""(sums, activations of one row, weights of all columns) -> sums."""


@dataclass(frozen=True)
class HalfDot:
    """One way to multiply activations with weights that are bfloat16 numbers.

    Attributes:
        name: Part of the kernel's name.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one step multiplies and adds.
        packed: Neighbours along the depth that lie together in a panel of weights, a multiple of ``group``.
        stored: Type in which the activations are kept; ``uint16`` holds the bits of a bfloat16.
        weights: Type in which the weights are kept, likewise.
        sums: Type of the sums.
        longest: Products of one sum, a multiple of ``packed``, before it is added to a total in f32; 0 if ``sums`` are
            f32 themselves.
        accumulate: Returns the sums after one more group; activations come as a vector of ``group`` stored values (a
            scalar for 1), weights as ``unpack`` returns them.
        unpack: Returns what ``accumulate`` multiplies with neighbours ``at`` to ``at + group``, out of a vector of
            ``lanes * packed`` weights, column by column.
        code: LLVM functions that ``accumulate`` and ``narrow`` call, for instructions on a type that TVM keeps from
            LLVM: it turns every bfloat16 into f32.
    """

    name: str
    lanes: int
    group: int
    packed: int
    stored: Literal["uint16", "float16", "float32"]
    weights: Literal["uint16", "float16"]
    sums: Literal["float32", "float16"]
    longest: int
    accumulate: Accumulate = field(repr=False)
    unpack: Callable[[Any, int], Any] = field(repr=False)
    code: str = field(default="", repr=False)

    def narrow(self, x: Any, lanes: int) -> Any:
        """Return a vector of f32 (a scalar for one lane) in the ``stored`` type, halves to even."""
        if self.stored == "float32":
            return x
        suffix = "" if lanes == 1 else f"x{lanes}"
        if self.stored == "float16":
            return ir.cast(x, f"float16{suffix}")
        return ir.call_pure_extern(f"uint16{suffix}", f"bf16_narrow_{lanes}", x)


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


def _native(name: str, instruction: str, lanes: int) -> HalfDot:
    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        pair = ir.broadcast(ir.reinterpret(a, dtype="int32"), lanes)
        return ir.call_pure_extern(f"float32x{lanes}", f"bf16_dot_{lanes}", sums, b, pair)

    def unpack(b: Any, at: int) -> Any:
        return ir.reinterpret(b, dtype=f"int32x{lanes}")

    code = _dot(instruction, lanes) + "".join(_narrow(1 << power) for power in range(lanes.bit_length()))
    return HalfDot(name, lanes, 2, 2, "uint16", "uint16", "float32", 0, accumulate, unpack, code)


def dpbf16ps(lanes: int) -> HalfDot:
    """AVX512-BF16: two bfloat16 products a lane; denormals count as zero, sums are rounded to even."""
    return _native(f"dpbf16ps{lanes}", f"llvm.x86.avx512bf16.dpbf16ps.{lanes * 32}", lanes)


def bfdot() -> HalfDot:
    """Arm BF16: two bfloat16 products a lane; denormals count as zero, each rounding is to odd."""
    return _native("bfdot", "llvm.aarch64.neon.bfdot.v4f32.v8bf16", 4)


def fmla() -> HalfDot:
    """Arm FullFP16: one f16 product a lane. Both sides must fit: below 65520, and steps of 2^-24 near zero."""

    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        return sums + ir.broadcast(a, 8) * b

    return HalfDot("fmla8", 8, 1, 1, "float16", "float16", "float16", 16, accumulate, lambda b, at: b)


def _widened(name: str, lanes: int, packed: int, unpack: Callable[[Any, int], Any]) -> HalfDot:
    def accumulate(sums: Any, a: Any, b: Any) -> Any:
        return sums + ir.broadcast(a, lanes) * b

    return HalfDot(name, lanes, 1, packed, "float32", "uint16", "float32", 0, accumulate, unpack)


def shifted(lanes: int) -> HalfDot:
    """Any target: weights become f32 in registers, the high half of 32 bits; activations stay f32."""

    def unpack(b: Any, at: int) -> Any:
        high = ir.cast(b, f"int32x{lanes}") << ir.broadcast(ir.int32(16), lanes)
        return ir.reinterpret(high, dtype=f"float32x{lanes}")

    return _widened(f"shifted{lanes}", lanes, 1, unpack)


def shifted_pairs(lanes: int) -> HalfDot:
    """Like ``shifted`` with half the loads and nothing to extend, but two more vectors at a time: for 32 registers."""

    def unpack(b: Any, at: int) -> Any:
        pairs = ir.reinterpret(b, dtype=f"int32x{lanes}")
        high = pairs & ir.broadcast(ir.int32(-0x10000), lanes) if at else pairs << ir.broadcast(ir.int32(16), lanes)
        return ir.reinterpret(high, dtype=f"float32x{lanes}")

    return _widened(f"shifted_pairs{lanes}", lanes, 2, unpack)


def half_of(has: Callable[[str], bool], architecture: str, lanes: int) -> HalfDot:
    """Return the best way of a target.

    Args:
        has: Whether LLVM's target has a feature.
        architecture: First part of LLVM's name of the platform, e.g. ``x86_64`` or ``aarch64``.
        lanes: f32 values in a vector register.
    """
    if architecture in ("aarch64", "arm64"):
        return bfdot() if has("bf16") else fmla() if has("fullfp16") else shifted_pairs(lanes)
    if architecture not in ("x86_64", "i386", "i686") or lanes != 16:
        return shifted(lanes)
    return dpbf16ps(lanes) if has("avx512bf16") else shifted_pairs(lanes)
