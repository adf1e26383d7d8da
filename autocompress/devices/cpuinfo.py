"""Read the text that Linux writes about its processor. Pure functions; ``detect`` does the reading of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

X86_ISA = (
    *("sse4_2", "avx", "avx2", "fma", "f16c"),
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vbmi2", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16"),
)
ARM_ISA = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")


@dataclass(frozen=True)
class Processor:
    """One logical processor of ``/proc/cpuinfo``.

    Attributes:
        index: Its number.
        model: Marketing name, "" on most Arm systems.
        vendor: x86 vendor, "" on Arm.
        family: x86 family, 0 on Arm.
        part: (implementer, part) of the Arm main ID register, (0, 0) on x86.
        mhz: Clock at the moment of reading, 0.0 where it is not said.
        isa: Extensions that matter to kernels, in the order of ``X86_ISA`` or ``ARM_ISA``.
        threads_per_core: Logical processors that share a core.
    """

    index: int
    model: str
    vendor: str
    family: int
    part: tuple[int, int]
    mhz: float
    isa: tuple[str, ...]
    threads_per_core: int


def parse_cpuinfo(text: str) -> tuple[Processor, ...]:
    """Return the processors of ``/proc/cpuinfo``, in its order."""
    stanzas = [_fields(stanza) for stanza in text.split("\n\n")]
    return tuple(_processor(fields) for fields in stanzas if "processor" in fields)


def board_name(text: str) -> str:
    """Return the board that ``/proc/cpuinfo`` names in its last stanza, "" on most systems."""
    boards = [fields["Model"] for fields in map(_fields, text.split("\n\n")) if "Model" in fields]
    return boards[-1] if boards else ""


def parse_cache_size(text: str) -> int:
    """Return bytes of a sysfs cache size such as ``32K``; 0 where it is not said."""
    text = text.strip()
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    digits = text.rstrip("KMG")
    return int(digits) * factor if digits.isdigit() else 0


def parse_cpu_quota(text: str) -> float | None:
    """Return how many cores a cgroup allows, from ``quota period``; ``None`` for no limit.

    Args:
        text: ``cpu.max`` of cgroup v2 (``max 100000``), or quota and period of v1 (``-1 100000``).
    """
    parts = text.split()
    if len(parts) != 2 or not parts[0].isdigit() or not parts[1].isdigit() or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def parse_memory_limit(text: str) -> int | None:
    """Return the bytes that a cgroup allows, ``None`` for no limit; v1 writes "no limit" as a number near 2^63."""
    text = text.strip()
    return int(text) if text.isdigit() and int(text) < 2**60 else None


def _fields(stanza: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in stanza.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _processor(fields: Mapping[str, str]) -> Processor:
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    known = X86_ISA if "flags" in fields else ARM_ISA
    siblings, cores = int(fields.get("siblings") or 1), int(fields.get("cpu cores") or 1)
    return Processor(
        index=int(fields["processor"]),
        model=fields.get("model name", ""),
        vendor=fields.get("vendor_id", ""),
        family=int(fields.get("cpu family") or 0),
        part=(int(fields.get("CPU implementer") or "0", 16), int(fields.get("CPU part") or "0", 16)),
        mhz=float(fields.get("cpu MHz") or 0),
        isa=tuple(flag for flag in known if flag in flags),
        threads_per_core=max(1, siblings // cores),
    )
