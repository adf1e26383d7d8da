"""Ask the system about its machine, also inside a container. Needs little, so that boards can do it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil

_DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "tvm": "apache-tvm"}
_EMULATORS = ("qemu-", "box64", "fex", "rosetta")
_SYSFS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class HostText:
    """What the system says of itself, as it says it.

    Attributes:
        machine: ``platform.machine()``.
        cpuinfo: Text of ``/proc/cpuinfo``.
        usable: Logical processors that this process may run on.
        caches: (level, type, size) of the first usable processor's caches, as sysfs writes them.
        max_khz: Highest clock of each processor for which cpufreq says it.
        cpu_quota: cgroup quota and period, "" where there is none.
        memory_limit: cgroup memory limit, "" where there is none.
        ram_bytes: Main memory of the machine.
        engines: Engine -> installed version.
        emulator: ``emulator()``.
    """

    machine: str
    cpuinfo: str
    usable: frozenset[int]
    ram_bytes: int
    caches: tuple[tuple[str, str, str], ...] = ()
    max_khz: Mapping[int, int] = field(default_factory=dict)
    cpu_quota: str = ""
    memory_limit: str = ""
    engines: Mapping[str, str] = field(default_factory=dict)
    emulator: str = ""


def read_host() -> HostText:
    """Read what the system says of itself; what it does not say stays empty."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    folder = _SYSFS / f"cpu{min(usable)}" / "cache"
    entries = sorted(folder.glob("index*")) if folder.is_dir() else []
    clocks = {cpu: _read(_SYSFS / f"cpu{cpu}" / "cpufreq" / "cpuinfo_max_freq") for cpu in usable}
    v1_quota = f"{_read(_CGROUP / 'cpu/cpu.cfs_quota_us')} {_read(_CGROUP / 'cpu/cpu.cfs_period_us')}"
    return HostText(
        machine=platform.machine(),
        cpuinfo=_read(Path("/proc/cpuinfo")),
        usable=frozenset(usable),
        ram_bytes=psutil.virtual_memory().total,
        caches=tuple((_read(e / "level"), _read(e / "type"), _read(e / "size")) for e in entries),
        max_khz={cpu: int(text) for cpu, text in clocks.items() if text.isdigit()},
        cpu_quota=_read(_CGROUP / "cpu.max") or v1_quota.strip(),
        memory_limit=_read(_CGROUP / "memory.max") or _read(_CGROUP / "memory/memory.limit_in_bytes"),
        engines=_engine_versions(),
        emulator=emulator(),
    )


def emulator() -> str:
    """Return the program that translates the instructions of this process, "" where a processor runs them.

    User-mode emulators hide behind ``/proc/self/exe``, but not behind the same link of a thread. A whole system that is
    emulated cannot be told from one in a virtual machine.
    """
    try:
        program = Path(f"/proc/self/task/{os.getpid()}/exe").readlink().name
    except OSError:
        return ""
    return program if program.lower().startswith(_EMULATORS) else ""


def copy_bandwidth_gb_s(*, size_bytes: int = 2**26, repeats: int = 5) -> float:
    """Time copies of an array and return the best, in 10^9 bytes read or written a second, as STREAM counts them."""
    source = np.ones(size_bytes // 8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        start_s = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start_s)
    return round(2 * source.nbytes / best / 1e9, 1)


def _engine_versions() -> dict[str, str]:
    versions = {}
    for engine, distribution in _DISTRIBUTIONS.items():
        try:
            versions[engine] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""
