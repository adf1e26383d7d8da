"""Where students shall run and what they may cost there, as a run file says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from autocompress.cost import Budget
from autocompress.devices.quantities import EnergyLimit, LatencyLimit, SizeLimit
from autocompress.devices.validation import MisfitError, Section
from autocompress.search_space import Count

Engine = Literal["onnxruntime", "tvm"]


class Device(Section):
    """Where the student will run."""

    profile: str = Field(default="host", description="Name of a device profile; see `autocompress device list`.")
    engine: Engine = Field(default="onnxruntime", description="What runs the student there.")
    threads: Count = Field(default=1, description="Threads that the engine gets.")

    @property
    def full_name(self) -> str:
        """What tells it from every other, as files of predictors are called."""
        return f"{self.profile}-{self.engine}-{self.threads}t"


class Limits(Section):
    """What the student may cost; a limit such as 0.4x is relative to the teacher on the same device."""

    latency_p50: LatencyLimit | None = Field(default=None, description="Median time of one inference: 60 ms or 0.4x.")
    latency_p95: LatencyLimit | None = Field(default=None, description="95th percentile of the same.")
    peak_memory: SizeLimit | None = Field(default=None, description="Peak memory of its process: 250 MiB or 0.5x.")
    size: SizeLimit | None = Field(default=None, description="Size of the exported file: 80 MB or 0.3x.")
    energy: EnergyLimit | None = Field(default=None, description="Energy of one inference: 15 mJ or 0.4x.")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self == Limits.model_construct():
            raise MisfitError("budget limits nothing", f"Set at least one of {', '.join(Limits.model_fields)}.")
        return self

    def to_budget(self) -> Budget:
        """Return the limits in milliseconds and bytes, relative ones as they are."""
        return Budget(
            latency_p50_ms=self.latency_p50,
            latency_p95_ms=self.latency_p95,
            peak_memory_bytes=self.peak_memory,
            size_bytes=self.size,
            energy_mj=self.energy,
        )


class FleetDevice(Device):
    """A further device that the same search serves."""

    profile: str = Field(description="Name of a device profile; see `autocompress device list`.")
    budget: Limits | None = Field(
        default=None, description="What the student may cost there; by default as much as the run's budget says."
    )


def names_of(devices: Sequence[Device]) -> list[str]:
    """Return what each is called: as its profile, or by its full name where others have the same profile."""
    profiles = Counter(device.profile for device in devices)
    return [device.profile if profiles[device.profile] == 1 else device.full_name for device in devices]


def check_distinct(devices: Sequence[Device]) -> None:
    """Refuse two devices of one name.

    Raises:
        MisfitError: Two differ neither in profile nor in engine and threads.
    """
    twice = [name for name, count in Counter(names_of(devices)).items() if count > 1]
    if twice:
        raise MisfitError(
            f"fleet names {twice[0]} twice, with device counted in",
            "Each device of a fleet has another profile, engine or number of threads.",
        )
