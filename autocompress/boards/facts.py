"""What a board says of itself: its processor as its system describes it, and how it is at this moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from autocompress.devices.system import HostText, copy_bandwidth_gb_s, read_host
from autocompress.profiling.conditions import read_state, read_temperatures

HOT_C = 75.0
"""Degrees from which small boards are about to slow down; a Raspberry Pi does at 80."""
BUSY_LOAD = 0.5
"""Mean number of running processes from which a board is not idle."""
LOW_DISK_BYTES = 2**29
LOW_MEMORY_BYTES = 2**27


@dataclass(frozen=True)
class Health:
    """How a board is now; ``None`` or empty where its system does not say.

    Attributes:
        temperatures_c: Sensor -> degrees Celsius.
        frequency_mhz: Clock of the core that the agent runs on.
        governor: What decides the clock, e.g. ``ondemand``.
        load: Mean number of running processes in the last minute.
        free_disk_bytes: Where artifacts are put.
        free_memory_bytes: What a new process can have.
    """

    temperatures_c: Mapping[str, float]
    frequency_mhz: float | None
    governor: str
    load: float
    free_disk_bytes: int
    free_memory_bytes: int

    def worries(self) -> tuple[str, ...]:
        """Return in words what makes measurements on the board doubtful."""
        hottest = max(self.temperatures_c.values(), default=0.0)
        found = {
            f"it is {hottest:.0f} degrees hot and may slow down": hottest >= HOT_C,
            f"it is busy (load {self.load:.2f})": self.load >= BUSY_LOAD,
            f"its governor is {self.governor}, not performance": self.governor not in {"", "performance"},
            f"only {self.free_disk_bytes / 2**20:.0f} MiB of its disk are free": self.free_disk_bytes < LOW_DISK_BYTES,
            f"only {self.free_memory_bytes / 2**20:.0f} MiB of its memory are free": (
                self.free_memory_bytes < LOW_MEMORY_BYTES
            ),
        }
        return tuple(worry for worry, holds in found.items() if holds)


@dataclass(frozen=True)
class Facts:
    """What a board says of itself.

    Attributes:
        system: What its profile is made of.
        bandwidth_gb_s: Timed copy of memory.
        health: How it is now.
    """

    system: HostText
    bandwidth_gb_s: float
    health: Health

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"system": asdict(self.system) | {"usable": sorted(self.system.usable)}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Facts:
        """Read what ``to_dict`` gave, also of a newer agent, which may say more."""
        system = {field.name: values["system"][field.name] for field in fields(HostText)}
        system["usable"] = frozenset(system["usable"])
        system["caches"] = tuple(tuple(cache) for cache in system["caches"])
        system["max_khz"] = {int(cpu): khz for cpu, khz in system["max_khz"].items()}
        health = {field.name: values["health"][field.name] for field in fields(Health)}
        return cls(HostText(**system), values["bandwidth_gb_s"], Health(**health))


def read_facts(folder: Path) -> Facts:
    """Ask the system. ``folder`` is where artifacts are put; a copy of 64 MiB of memory is timed."""
    return Facts(read_host(), copy_bandwidth_gb_s(), read_health(folder))


def read_health(folder: Path) -> Health:
    """Ask the system how it is now."""
    state = read_state()
    return Health(
        temperatures_c=read_temperatures(),
        frequency_mhz=None if state.frequency_ghz is None else 1e3 * state.frequency_ghz,
        governor=state.governor,
        load=os.getloadavg()[0],
        free_disk_bytes=shutil.disk_usage(folder).free,
        free_memory_bytes=int(psutil.virtual_memory().available),
    )
