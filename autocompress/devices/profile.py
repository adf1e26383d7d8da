"""What a device is: its processor, caches and memory, each with where the number comes from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from autocompress.devices.quantities import Bytes
from autocompress.devices.validation import MisfitError, Section

SPECS = ("cpu", "cores", "isa", "vector_bits", "caches", "ram_bytes", "memory_bandwidth_gb_s", "power_w")
"""The fields that need a source."""

_TARGET_KEYS = ("kind", "mtriple", "mcpu", "mattr", "num-cores")


class CoreKind(Section):
    """Equal cores of a processor; a big.LITTLE processor has several kinds."""

    name: str = Field(description="Microarchitecture, for example Cortex-A72.")
    count: int = Field(gt=0, description="Physical cores of this kind that a process may use.")
    frequency_ghz: float = Field(gt=0, description="Highest sustained clock, in GHz.")
    f32_flops_per_cycle: float = Field(gt=0, description="Peak of one core; a fused multiply-add counts as 2.")
    int8_ops_per_cycle: float = Field(gt=0, description="Peak of one core; a multiply-add counts as 2.")


class Caches(Section):
    """Data caches that one of the fastest cores reaches; ``None`` where there is none or its size is not known."""

    l1d_bytes: Bytes = Field(description="First level, of one core.")
    l2_bytes: Bytes | None = Field(default=None, description="Second level, of one core or its cluster.")
    l3_bytes: Bytes | None = Field(default=None, description="Third level, shared.")


class DeviceProfile(Section):
    """A device as data. It says nothing about how to reach the device."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Name of the profile, and of its file.")
    title: str = Field(description="Name that people use.")
    description: str = Field(default="", description="What to know about it, in a sentence or two.")
    architecture: Literal["x86_64", "aarch64"] = Field(description="Instruction set.")
    cpu: str = Field(description="Model of the processor or system on a chip.")
    cores: tuple[CoreKind, ...] = Field(min_length=1, description="Kinds of cores, fastest first.")
    isa: tuple[str, ...] = Field(description="Instruction set extensions, by their names in Linux' /proc/cpuinfo.")
    vector_bits: int = Field(gt=0, description="Width of a vector register, in bits.")
    caches: Caches = Field(description="Data caches.")
    ram_bytes: Bytes = Field(gt=0, description="Main memory.")
    memory_bandwidth_gb_s: float | None = Field(
        default=None, gt=0, description="Main memory bandwidth in 10^9 bytes/s: sustained where known, else the peak."
    )
    power_w: float | None = Field(
        default=None, gt=0, description="What the device takes while it runs a model, in watts; energy follows from it."
    )
    tvm_target: dict[str, str | int | list[str]] = Field(description="What tvm.target.Target takes.")
    engines: dict[str, str] = Field(default_factory=dict, description="Engine -> version, where known.")
    threads: int = Field(default=1, gt=0, description="Threads an engine gets unless the run says otherwise.")
    calibration: Literal["none", "measured"] = Field(
        description="Whether AutoCompress ever measured this device; if not, its costs are estimates."
    )
    emulated: str = Field(
        default="", description="Program that emulates it, if one does; its times are then no device's."
    )
    sources: dict[str, str] = Field(description="Spec -> where its value comes from.")

    @field_validator("tvm_target")
    @classmethod
    def _check_target(cls, target: dict[str, str | int | list[str]]) -> dict[str, str | int | list[str]]:
        unknown = sorted(set(target) - set(_TARGET_KEYS))
        if unknown or target.get("kind") != "llvm":
            raise ValueError(f"kind is llvm; further keys are {', '.join(_TARGET_KEYS[1:])}.")
        return target

    @model_validator(mode="after")
    def _every_spec_has_a_source(self) -> Self:
        missing = [spec for spec in SPECS if getattr(self, spec) is not None and not self.sources.get(spec)]
        unknown = sorted(set(self.sources) - set(SPECS))
        if missing:
            raise MisfitError(f"sources lacks {', '.join(missing)}", "Say in sources where each spec comes from.")
        if unknown:
            raise MisfitError(f"sources names {', '.join(unknown)}", f"Specs are {', '.join(SPECS)}.")
        if self.threads > self.core_count:
            raise MisfitError(f"threads is {self.threads}", f"There are {self.core_count} cores.")
        return self

    @property
    def core_count(self) -> int:
        """Physical cores of all kinds."""
        return sum(kind.count for kind in self.cores)

    @property
    def frequency_ghz(self) -> float:
        """Clock of the fastest core, in GHz."""
        return self.cores[0].frequency_ghz

    @property
    def f32_flops_per_cycle(self) -> float:
        """Peak f32 operations of the fastest core in a cycle."""
        return self.cores[0].f32_flops_per_cycle

    @property
    def int8_ops_per_cycle(self) -> float:
        """Peak int8 operations of the fastest core in a cycle."""
        return self.cores[0].int8_ops_per_cycle

    def f32_gflops(self, threads: int = 1) -> float:
        """Return the peak of the ``threads`` fastest cores, in 10^9 f32 operations a second."""
        return sum(kind.frequency_ghz * kind.f32_flops_per_cycle * used for kind, used in self._busy(threads))

    def int8_gops(self, threads: int = 1) -> float:
        """Return the peak of the ``threads`` fastest cores, in 10^9 int8 operations a second."""
        return sum(kind.frequency_ghz * kind.int8_ops_per_cycle * used for kind, used in self._busy(threads))

    def _busy(self, threads: int) -> list[tuple[CoreKind, int]]:
        busy, left = [], threads
        for kind in self.cores:
            busy.append((kind, min(left, kind.count)))
            left -= busy[-1][1]
        return busy
