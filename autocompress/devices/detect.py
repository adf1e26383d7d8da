"""Look at this machine: cores, extensions, caches, memory and engines, also inside a container."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from math import ceil
from pathlib import Path

import numpy as np
import psutil
import yaml

from autocompress.devices import cores as known
from autocompress.devices.cpuinfo import (
    Processor,
    board_name,
    parse_cache_size,
    parse_cpu_quota,
    parse_cpuinfo,
    parse_memory_limit,
)
from autocompress.devices.profile import Caches, CoreKind, DeviceProfile
from autocompress.errors import DeviceError

HOST = "host"
"""Name of this machine's profile."""

ASSUMED_GHZ = 2.0
"""Clock that is assumed where neither the kernel nor the processor says it."""

_DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "tvm": "apache-tvm"}
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


def detect_host(*, measure_bandwidth: bool = True) -> DeviceProfile:
    """Return the profile of this machine, named ``host``.

    Args:
        measure_bandwidth: Whether to time a copy of memory (about 0.1 s).

    Raises:
        DeviceError: This is not Linux on x86-64 or AArch64.
    """
    return profile_of(read_host(), bandwidth_gb_s=copy_bandwidth_gb_s() if measure_bandwidth else None)


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
    )


def profile_of(host: HostText, *, bandwidth_gb_s: float | None = None) -> DeviceProfile:
    """Build the profile from what the system said.

    Raises:
        DeviceError: The text names no processor of a known architecture.
    """
    architecture = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(host.machine)
    processors = [cpu for cpu in parse_cpuinfo(host.cpuinfo) if cpu.index in host.usable]
    if architecture is None or not processors:
        raise DeviceError(
            f"This machine ({host.machine or 'unknown'}) does not describe its processor in /proc/cpuinfo.",
            right="Detection works on Linux, on x86-64 and AArch64.",
            next_step="Write a device profile by hand; device_profiles/raspberry-pi-4.yaml is an example.",
        )
    arm = architecture == "aarch64"
    kinds = _core_kinds(processors, host, arm)
    first = processors[0]
    limit = parse_memory_limit(host.memory_limit)
    count = sum(kind.count for kind in kinds)
    mcpu = known.x86_llvm(first.vendor, first.family, first.isa) if not arm else _arm_core(_fastest(processors)).llvm
    title = board_name(host.cpuinfo) or first.model or kinds[0].name
    return DeviceProfile(
        name=HOST,
        title=title,
        description="This machine, as it described itself.",
        architecture="aarch64" if arm else "x86_64",
        cpu=first.model or " + ".join(kind.name for kind in kinds),
        cores=kinds,
        isa=first.isa,
        vector_bits=128 if arm else known.x86_vector_bits(first.isa),
        caches=_caches(host.caches),
        ram_bytes=min(host.ram_bytes, limit or host.ram_bytes),
        memory_bandwidth_gb_s=bandwidth_gb_s,
        tvm_target={"kind": "llvm", "mcpu": mcpu, "num-cores": count},
        engines=dict(host.engines),
        threads=count,
        calibration="none",
        sources=_sources(kinds, measured=bandwidth_gb_s is not None),
    )


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


def write_profile(profile: DeviceProfile, folder: Path) -> Path:
    """Write ``<folder>/<name>.yaml`` and return its path; an interrupted write leaves what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.name}.yaml"
    draft = path.with_suffix(".yaml.tmp")
    data = profile.model_dump(mode="json", exclude_none=True)
    draft.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
    draft.replace(path)
    return path


def _core_kinds(processors: list[Processor], host: HostText, arm: bool) -> tuple[CoreKind, ...]:
    """Group the processors by kind, fastest first, and cut them to the cgroup's quota."""
    left = max(1, ceil(parse_cpu_quota(host.cpu_quota) or len(processors)))
    groups: Counter[tuple[str, float, float, float]] = Counter()
    for cpu in processors:
        ghz = host.max_khz.get(cpu.index, 0) / 1e6 or cpu.mhz / 1e3 or ASSUMED_GHZ
        if arm:
            core = _arm_core(cpu)
            f32, name = core.f32_flops_per_cycle, core.name
            int8 = known.arm_int8_ops_per_cycle(f32, cpu.isa)
        else:
            f32, name = known.x86_f32_flops_per_cycle(cpu.vendor, cpu.family, cpu.isa), cpu.model
            int8 = known.x86_int8_ops_per_cycle(cpu.vendor, cpu.family, cpu.isa)
            # The clock of the moment differs from core to core of one kind.
            ghz = max(host.max_khz.get(p.index, 0) / 1e6 or p.mhz / 1e3 or ASSUMED_GHZ for p in processors)
        groups[name, round(ghz, 3), f32, int8] += 1
    kinds = []
    for (name, ghz, f32, int8), logical in sorted(groups.items(), key=lambda item: -item[0][1] * item[0][2]):
        count = min(left, max(1, logical // processors[0].threads_per_core))
        left -= count
        if count:
            kinds.append(
                CoreKind(name=name, count=count, frequency_ghz=ghz, f32_flops_per_cycle=f32, int8_ops_per_cycle=int8)
            )
    return tuple(kinds)


def _arm_core(cpu: Processor) -> known.ArmCore:
    return known.ARM_CORES.get(cpu.part, known.UNKNOWN_ARM)


def _fastest(processors: list[Processor]) -> Processor:
    return max(processors, key=lambda cpu: _arm_core(cpu).f32_flops_per_cycle)


def _caches(entries: tuple[tuple[str, str, str], ...]) -> Caches:
    sizes = {int(level): parse_cache_size(size) for level, kind, size in entries if kind in {"Data", "Unified"}}
    # 32 KiB is what every x86-64 and AArch64 application core has at least.
    return Caches(l1d_bytes=sizes.get(1) or 2**15, l2_bytes=sizes.get(2) or None, l3_bytes=sizes.get(3) or None)


def _sources(kinds: tuple[CoreKind, ...], *, measured: bool) -> dict[str, str]:
    assumed = f"; a clock that is not said is taken as {ASSUMED_GHZ} GHz"
    clocks = assumed if any(kind.frequency_ghz == ASSUMED_GHZ for kind in kinds) else ""
    sources = {
        "cpu": "/proc/cpuinfo",
        "cores": "/proc/cpuinfo, cpufreq, processor affinity and cgroup quota; peaks by microarchitecture" + clocks,
        "isa": "/proc/cpuinfo",
        "vector_bits": "widest register of the extensions",
        "caches": "/sys/devices/system/cpu; a first level that is not said is taken as 32 KiB",
        "ram_bytes": "/proc/meminfo and cgroup limit",
    }
    return {**sources, "memory_bandwidth_gb_s": "timed copy of 64 MiB on one core"} if measured else sources


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
