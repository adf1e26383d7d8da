"""How processors multiply and add a few neighbouring small numbers in one step; plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dot:
    """How a processor adds the products of a few neighbouring 8-bit values to a vector of int32 sums.

    ``intrinsics.dot`` holds the instructions of each name.

    Attributes:
        name: Of the instruction.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one step multiplies and adds.
        stored: Type in which the activations are kept.
        shift: Subtracted from a uint8 activation before it is stored.
    """

    name: str
    lanes: int
    group: int
    stored: str
    shift: int = 0

    @property
    def signed(self) -> bool:
        """Whether bytes of weights are multiplied as -128..127, so that activations in groups may be signed as well."""
        return self.name == "sdot"


def vnni(lanes: int) -> Dot:
    """AVX-512 VNNI or AVX-VNNI: four uint8 x int8 products a lane."""
    return Dot("vnni", lanes, 4, "uint8")


def usdot() -> Dot:
    """Arm I8MM: four uint8 x int8 products a lane."""
    return Dot("usdot", 4, 4, "uint8")


def sdot() -> Dot:
    """Arm DotProd: four int8 x int8 products a lane, so activations are stored less 128."""
    return Dot("sdot", 4, 4, "int8", shift=128)


def smlal() -> Dot:
    """Any 64-bit Arm: one int16 product a lane."""
    return Dot("smlal", 4, 1, "int16")


def pmaddwd(lanes: int) -> Dot:
    """SSE2, AVX2 or AVX-512BW: two int16 products a lane, which cannot saturate for 8-bit values."""
    return Dot("pmaddwd", lanes, 2, "int16")


def widening(lanes: int) -> Dot:
    """Any target: both sides widened to int32 and multiplied."""
    return Dot("widening", lanes, 1, "uint8")


def nibble_vnni(lanes: int) -> Dot:
    """AVX-512 VNNI or AVX-VNNI, the weights on the unsigned side."""
    return Dot("vnni", lanes, 4, "int8")


def nibble_maddubs(lanes: int) -> Dot:
    """AVX2 or AVX-512BW: pairs of byte products, then pairs of these."""
    return Dot("maddubs", lanes, 4, "int8")


def nibble_sdot() -> Dot:
    """Arm DotProd: weights of 0..15 fit the signed side as well."""
    return Dot("sdot", 4, 4, "int8")


def bytes_in_groups(nibbles: Dot) -> Dot:
    """Return how int8 activations are multiplied by bytes of weights where ``nibbles`` multiplies 0..15.

    Pairs of products of bytes, which ``maddubs`` adds up as int16, would saturate: 2 * 255 * 127.
    """
    return nibble_widening(pmaddwd(nibbles.lanes)) if nibbles.name == "maddubs" else nibbles


def nibble_widening(dot: Dot) -> Dot:
    """Any ``dot`` that widens both sides anyway (``pmaddwd``, ``smlal``, ``widening``): so does it with nibbles."""
    return Dot(dot.name, dot.lanes, dot.group, "int8" if dot.stored == "uint8" else dot.stored)


@dataclass(frozen=True)
class HalfDot:
    """How a processor multiplies activations with weights that are bfloat16 numbers.

    ``intrinsics.half`` holds the instructions of each name.

    Attributes:
        name: Of the instruction.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one step multiplies and adds.
        packed: Neighbours along the depth that lie together in a panel of weights, a multiple of ``group``.
        stored: Type in which the activations are kept; ``uint16`` holds the bits of a bfloat16.
        weights: Type in which the weights are kept, likewise.
        longest: Products of one sum in f16, a multiple of ``packed``, before it is added to a total in f32; 0 where
            sums are f32 themselves.
    """

    name: str
    lanes: int
    group: int
    packed: int
    stored: Literal["uint16", "float16", "float32"]
    weights: Literal["uint16", "float16"]
    longest: int = 0


def dpbf16ps(lanes: int) -> HalfDot:
    """AVX512-BF16: two bfloat16 products a lane; denormals count as zero, sums are rounded to even."""
    return HalfDot("dpbf16ps", lanes, 2, 2, "uint16", "uint16")


def bfdot() -> HalfDot:
    """Arm BF16: two bfloat16 products a lane; denormals count as zero, each rounding is to odd."""
    return HalfDot("bfdot", 4, 2, 2, "uint16", "uint16")


def fmla() -> HalfDot:
    """Arm FullFP16: one f16 product a lane. Both sides must fit: below 65520, and steps of 2^-24 near zero."""
    return HalfDot("fmla", 8, 1, 1, "float16", "float16", longest=16)


def shifted(lanes: int) -> HalfDot:
    """Any target: weights become f32 in registers, the high half of 32 bits; activations stay f32."""
    return HalfDot("shifted", lanes, 1, 1, "float32", "uint16")


def shifted_pairs(lanes: int) -> HalfDot:
    """Like ``shifted`` with half the loads and nothing to extend, but two more vectors at a time: for 32 registers."""
    return HalfDot("shifted_pairs", lanes, 1, 2, "float32", "uint16")


def half_of(has: Callable[[str], bool], architecture: str, lanes: int) -> HalfDot:
    """Return the best product with bfloat16 weights of a target.

    Args:
        has: Whether LLVM's target has a feature.
        architecture: What LLVM lists the platform under, e.g. ``x86_64`` or ``aarch64``.
        lanes: f32 values in a vector register.
    """
    if architecture == "aarch64":
        return bfdot() if has("bf16") else fmla() if has("fullfp16") else shifted_pairs(lanes)
    if architecture not in ("x86_64", "i386", "i686") or lanes != 16:
        return shifted(lanes)
    return dpbf16ps(lanes) if has("avx512bf16") else shifted_pairs(lanes)
