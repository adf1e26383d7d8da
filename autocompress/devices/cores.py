"""What a core does in a cycle, by what the processor says of itself.

Peaks are upper bounds for a roofline, not promises: f32 from WikiChip's "FLOPs by microarchitecture", Arm's software
optimization guides (SIMD pipes of 128 bits times one fused multiply-add) and, for the Cortex-A72, the measured 8 of
https://wlog.flatlib.jp/2015/10/30/n1787/.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class ArmCore:
    """An Arm core: its name, LLVM's name for it, and the f32 operations of its fused multiply-adds in a cycle."""

    name: str
    llvm: str
    f32_flops_per_cycle: float


UNKNOWN_ARM = ArmCore("Armv8 core", "generic", 8)
"""One 128-bit fused multiply-add in a cycle: the least that an AArch64 application core has."""

ARM_CORES: dict[tuple[int, int], ArmCore] = {
    (0x41, 0xD03): ArmCore("Cortex-A53", "cortex-a53", 8),
    (0x41, 0xD05): ArmCore("Cortex-A55", "cortex-a55", 8),
    (0x41, 0xD07): ArmCore("Cortex-A57", "cortex-a57", 8),
    (0x41, 0xD08): ArmCore("Cortex-A72", "cortex-a72", 8),
    (0x41, 0xD0B): ArmCore("Cortex-A76", "cortex-a76", 16),
    (0x41, 0xD0C): ArmCore("Neoverse N1", "neoverse-n1", 16),
    (0x41, 0xD0D): ArmCore("Cortex-A77", "cortex-a77", 16),
    (0x41, 0xD40): ArmCore("Neoverse V1", "neoverse-v1", 32),
    (0x41, 0xD41): ArmCore("Cortex-A78", "cortex-a78", 16),
    (0x41, 0xD42): ArmCore("Cortex-A78AE", "cortex-a78ae", 16),
    (0x41, 0xD44): ArmCore("Cortex-X1", "cortex-x1", 32),
    (0x41, 0xD46): ArmCore("Cortex-A510", "cortex-a510", 8),
    (0x41, 0xD47): ArmCore("Cortex-A710", "cortex-a710", 16),
    (0x41, 0xD48): ArmCore("Cortex-X2", "cortex-x2", 32),
    (0x41, 0xD49): ArmCore("Neoverse N2", "neoverse-n2", 16),
    (0x41, 0xD4D): ArmCore("Cortex-A715", "cortex-a715", 16),
    (0x41, 0xD4E): ArmCore("Cortex-X3", "cortex-x3", 32),
    (0x41, 0xD4F): ArmCore("Neoverse V2", "neoverse-v2", 32),
}
"""(implementer, part) of the main ID register -> core."""


def arm_int8_ops_per_cycle(f32_flops_per_cycle: float, isa: Collection[str]) -> float:
    """Return int8 operations in a cycle, from how many multiply-adds an instruction of the same pipe makes.

    FMLA makes 4 (f32), SMMLA 32, SDOT 16. Without either, SMULL makes 8 but needs SADALP on the other pipe.
    """
    return f32_flops_per_cycle * (8 if "i8mm" in isa else 4 if "asimddp" in isa else 2)


def x86_f32_flops_per_cycle(vendor: str, family: int, isa: Collection[str]) -> float:
    """Return the f32 operations of one x86 core in a cycle: two fused multiply-adds of the vector width.

    Zen 4 (family 25) runs 512-bit instructions on its two 256-bit units.
    """
    if "avx512f" in isa and not (vendor == "AuthenticAMD" and family <= 25):
        return 64
    if "fma" in isa and "avx2" in isa:
        return 32
    return 16 if "avx" in isa else 8


def x86_int8_ops_per_cycle(vendor: str, family: int, isa: Collection[str]) -> float:
    """Return the int8 operations of one x86 core in a cycle.

    VPDPBUSD makes four multiply-adds a 32-bit lane, four times what a fused multiply-add makes. Without it,
    VPMADDUBSW and VPMADDWD take two instructions for the same.
    """
    f32 = x86_f32_flops_per_cycle(vendor, family, isa)
    vnni = "avx_vnni" in isa or ("avx512_vnni" in isa and "avx512f" in isa)
    return f32 * (4 if vnni else 2)


def x86_vector_bits(isa: Collection[str]) -> int:
    """Return the width of the widest vector register."""
    return 512 if "avx512f" in isa else 256 if "avx" in isa else 128


def x86_llvm(vendor: str, family: int, isa: Collection[str]) -> str:
    """Return the newest LLVM processor all of whose vector extensions are in ``isa``.

    A virtual machine may hide extensions, so the flags decide and the model only breaks ties.
    """
    amd = vendor == "AuthenticAMD"
    if amd and {"avx512_vnni", "avx512_bf16", "avx512_vbmi2"} <= set(isa):
        return "znver5" if family >= 26 and "avx_vnni" in isa else "znver4"
    if {"amx_tile", "amx_int8", "avx512_bf16", "avx_vnni"} <= set(isa):
        return "sapphirerapids"
    if {"avx512_vnni", "avx512_vbmi2"} <= set(isa):
        return "icelake-server"
    if "avx512_vnni" in isa:
        return "cascadelake"
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(isa):
        return "skylake-avx512"
    if "avx_vnni" in isa:
        return "alderlake"
    if "avx2" in isa and "fma" in isa:
        return "x86-64-v3"
    return "x86-64-v2" if "sse4_2" in isa else "x86-64"
