"""The processor a library is compiled for: what LLVM calls it, and what the kernels need to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm.target import Target as LlvmTarget
from tvm.target import codegen

from autocompress.compiler.dots import (
    Dot,
    half_of,
    nibble_maddubs,
    nibble_sdot,
    nibble_vnni,
    nibble_widening,
    pmaddwd,
    sdot,
    smlal,
    usdot,
    vnni,
    widening,
)
from autocompress.compiler.machine import Machine
from autocompress.errors import UnsupportedError


@dataclass(frozen=True)
class Target:
    """A processor and, where it is not the host's, how to link for it.

    Attributes:
        cpu: LLVM's name of the processor, e.g. ``znver4`` or ``cortex-a72``.
        triple: LLVM's name of the platform; empty for the host's.
        features: LLVM features to add or take away, e.g. ``+dotprod``.
        linker: Command that links object files into a shared library; empty for the host's compiler.
    """

    cpu: str
    triple: str = ""
    features: tuple[str, ...] = ()
    linker: str = ""

    @classmethod
    def host(cls) -> Target:
        """Return the processor that this process runs on."""
        return cls(str(codegen.llvm_get_system_cpu()))

    @classmethod
    def of(cls, description: Target | Mapping[str, object] | None) -> Target:
        """Return a target as it is, read one from its description, or take this machine for ``None``."""
        if isinstance(description, Mapping):
            return cls.read(description)
        return description or cls.host()

    def __str__(self) -> str:
        """Say platform, processor and features, e.g. ``aarch64-linux-gnu cortex-a76 +dotprod``."""
        return " ".join(part for part in (self.triple, self.cpu, *self.features) if part)

    @classmethod
    def read(cls, description: Mapping[str, object]) -> Target:
        """Read a description with the keys of ``tvm.target.Target``: kind, mcpu, mtriple, mattr, num-cores, linker.

        Raises:
            UnsupportedError: A key is unknown, the kind is not llvm, or there is no mcpu.
        """
        known = ("kind", "mcpu", "mtriple", "mattr", "num-cores", "linker")
        unknown = sorted(set(description) - set(known))
        if unknown or description.get("kind", "llvm") != "llvm" or not description.get("mcpu"):
            raise UnsupportedError(
                f"The target {dict(description)!r} cannot be compiled for.",
                right=f"A target has the kind llvm, an mcpu, and no keys but {', '.join(known)}.",
                next_step='Describe it like {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}.',
            )
        features = description.get("mattr", ())
        names = tuple(features) if isinstance(features, list | tuple) else (str(features),)
        text = {key: str(description.get(key, "")) for key in known}
        return cls(text["mcpu"], text["mtriple"], tuple(str(name) for name in names if name), text["linker"])

    def llvm(self, cores: int = 0) -> LlvmTarget:
        """Return TVM's target.

        Args:
            cores: For MetaSchedule, which must know; no code depends on it.

        Raises:
            UnsupportedError: LLVM knows neither such a platform nor such a processor on it.
        """
        triple = _with_vendor(self.triple)
        platform: dict[str, Any] = {"kind": "llvm"} | ({"mtriple": triple} if triple else {})
        architecture = (triple or str(codegen.llvm_get_system_triple())).split("-")[0]
        known = [str(name) for name in codegen.llvm_get_targets()]
        if _LLVM_NAMES.get(architecture, architecture) not in known:
            raise UnsupportedError(
                f"The compiler cannot produce code for the platform {self.triple!r}.",
                right=f"Architectures are {', '.join(known)}.",
                next_step='Set mtriple, for example to "aarch64-linux-gnu".',
            )
        processors = sorted(str(name) for name in codegen.llvm_get_cpu_archlist(LlvmTarget(platform)))
        if self.cpu not in processors:
            raise UnsupportedError(
                f"LLVM does not know the processor {self.cpu!r} on {architecture}.",
                right=f"Processors are {', '.join(processors)}.",
                next_step="Set mcpu to one of them, or leave the target out to compile for this machine.",
            )
        extra = ({"mattr": list(self.features)} if self.features else {}) | ({"num-cores": cores} if cores else {})
        target = LlvmTarget(platform | {"mcpu": self.cpu} | extra)
        if architecture == "riscv64" and not codegen.target_has_features("d", target):
            raise UnsupportedError(
                f"The processor {self.cpu!r} is described without floating-point registers.",
                right="Libraries for Linux on riscv64 pass numbers in them.",
                next_step='Add the features of the processor, for example mattr = ["+m", "+a", "+f", "+d", "+c"].',
            )
        return target


_LLVM_NAMES = {"arm64": "aarch64", "armv7a": "arm", "armv7l": "arm"}
"""First part of a triple -> what LLVM lists it under."""


def _with_vendor(triple: str) -> str:
    """Return a triple of four parts: LLVM reads no ABI from three, and passes floats in integer registers."""
    parts = triple.split("-")
    return "-".join([parts[0], "unknown", *parts[1:]]) if len(parts) == 3 and parts[1] == "linux" else triple


_REPORTED = {
    "x86_64": {
        "avx2": "avx2",
        "fma": "fma",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512vl": "avx512vl",
        "avx512vnni": "avx512_vnni",
        "avx512bf16": "avx512_bf16",
        "avxvnni": "avx_vnni",
    },
    "aarch64": {"dotprod": "asimddp", "fullfp16": "asimdhp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve"},
}
"""LLVM's name of a set of instructions -> the name under which Linux reports it."""


def _architecture(target: LlvmTarget) -> str:
    """Return what LLVM lists the platform of ``target`` under, e.g. ``x86_64`` or ``aarch64``."""
    first = str(target.attrs.get("mtriple", "") or codegen.llvm_get_system_triple()).split("-")[0]
    return _LLVM_NAMES.get(first, first)


def instructions(target: LlvmTarget) -> list[str]:
    """Return the sets of instructions that code for ``target`` may use beyond the least, as Linux names them."""
    known = _REPORTED.get(_architecture(target), {})
    return [name for feature, name in known.items() if codegen.target_has_features(feature, target)]


def machine_of(target: LlvmTarget) -> Machine:
    """Return what the kernels need to know about ``target``."""

    def has(feature: str) -> bool:
        return bool(codegen.target_has_features(feature, target))

    architecture = _architecture(target)

    def machine(lanes: int, registers: int, dot: Dot, nibbles: Dot) -> Machine:
        return Machine(
            lanes, registers, dot, nibbles, half_of(has, architecture, lanes), ahead=architecture == "x86_64"
        )

    if architecture == "aarch64":
        nibbles = nibble_sdot() if has("dotprod") else nibble_widening(smlal())
        return machine(4, 32, usdot() if has("i8mm") else sdot() if has("dotprod") else smlal(), nibbles)
    if architecture not in ("x86_64", "i386", "i686"):
        return machine(4, 16, widening(4), nibble_widening(widening(4)))
    if has("avx512bw"):
        if has("avx512vnni"):
            return machine(16, 32, vnni(16), nibble_vnni(16))
        return machine(16, 32, pmaddwd(16), nibble_maddubs(16))
    if has("avx2"):
        if has("avxvnni"):
            return machine(8, 16, vnni(8), nibble_vnni(8))
        return machine(8, 16, pmaddwd(8), nibble_maddubs(8))
    return machine(4, 16, pmaddwd(4), nibble_widening(pmaddwd(4)))
