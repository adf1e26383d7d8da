"""Make the profile of a machine of what its system says."""

from __future__ import annotations

from collections import Counter
from math import ceil
from pathlib import Path

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
from autocompress.devices.paths import write_text
from autocompress.devices.profile import Caches, CoreKind, DeviceProfile
from autocompress.devices.system import HostText, copy_bandwidth_gb_s, read_host
from autocompress.errors import DeviceError

HOST = "host"
"""Name of this machine's profile."""

ASSUMED_GHZ = 2.0
"""Clock that is assumed where neither the kernel nor the processor says it."""


def detect_host(*, measure_bandwidth: bool = True) -> DeviceProfile:
    """Return the profile of this machine, named ``host``.

    Args:
        measure_bandwidth: Whether to time a copy of memory (about 0.1 s).

    Raises:
        DeviceError: This is not Linux on x86-64 or AArch64.
    """
    return profile_of(read_host(), bandwidth_gb_s=copy_bandwidth_gb_s() if measure_bandwidth else None)


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
        emulated=host.emulator,
        sources=_sources(kinds, measured=bandwidth_gb_s is not None),
    )


def write_profile(profile: DeviceProfile, folder: Path) -> Path:
    """Write ``<folder>/<name>.yaml`` and return its path; an interrupted write leaves what was there."""
    path = folder / f"{profile.name}.yaml"
    data = profile.model_dump(mode="json", exclude_none=True)
    write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))
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
