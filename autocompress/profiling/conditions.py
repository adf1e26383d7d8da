"""How the processor is at this moment: its clock, its heat, what decides its clock, and whether it is held back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autocompress.profiling.sysfs import SYS, read_number, read_text

PROC = Path("/proc")
PROCESSOR_WORDS = ("cpu", "core", "soc", "pkg", "k10temp", "zenpower", "tctl", "little", "big")
"""A sensor with one of these in its name (in lower case) tells the heat of the processor; others may be of a disk."""

_CLOCKS = ("cpuinfo_cur_freq", "scaling_cur_freq")  # The hardware's own (root only), else what was asked of it.
_LIMITED_NOW = 0xF  # Under-voltage, frequency capped, throttled, soft temperature limit; higher bits: since boot.


@dataclass(frozen=True)
class ProcessorState:
    """What the system tells of the processor now; ``None`` or empty where it does not.

    Attributes:
        frequency_ghz: Clock of the core that the calling thread runs on.
        temperature_c: Of its hottest sensor.
        governor: What decides the clock, e.g. ``ondemand``.
        throttled: Whether its firmware holds it back, for heat or for want of power.
    """

    frequency_ghz: float | None = None
    temperature_c: float | None = None
    governor: str = ""
    throttled: bool | None = None

    def provenance(self) -> dict[str, str]:
        """Return what is known as text."""
        known = {
            "frequency_ghz": None if self.frequency_ghz is None else f"{self.frequency_ghz:.3f}",
            "temperature_c": None if self.temperature_c is None else f"{self.temperature_c:.1f}",
            "governor": self.governor or None,
            "throttled": None if self.throttled is None else ("yes" if self.throttled else "no"),
        }
        return {key: text for key, text in known.items() if text is not None}


def read_state(*, sysfs: Path = SYS, procfs: Path = PROC) -> ProcessorState:
    """Ask the system. Called right after work on the same thread, it tells of the core that did the work."""
    core = _this_core(procfs)
    return ProcessorState(
        frequency_ghz=_frequency_ghz(core, sysfs, procfs),
        temperature_c=processor_c(read_temperatures(sysfs=sysfs)),
        governor=read_text(_cpufreq(core, sysfs) / "scaling_governor"),
        throttled=_throttled(sysfs),
    )


def read_temperatures(*, sysfs: Path = SYS) -> dict[str, float]:
    """Return sensor -> degrees Celsius of all sensors that the system has; of equal names the hotter one."""
    found: dict[str, float] = {}
    for name, path in _sensors(sysfs):
        millidegrees = read_number(path)
        if millidegrees is not None:
            found[name] = max(found.get(name, float("-inf")), millidegrees / 1e3)
    return found


def processor_c(temperatures_c: dict[str, float]) -> float | None:
    """Return what the hottest of the processor's sensors says, ``None`` where none is known to be the processor's."""
    own = [degrees for name, degrees in temperatures_c.items() if any(word in name.lower() for word in PROCESSOR_WORDS)]
    return max(own, default=None)


def _sensors(sysfs: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(sysfs.glob("class/hwmon/hwmon*/temp*_input")):
        label = read_text(path.with_name(path.name.replace("_input", "_label")))
        yield f"{read_text(path.with_name('name'))} {label}".strip(), path
    for path in sorted(sysfs.glob("class/thermal/thermal_zone*/temp")):
        # A zone that is also shown by hwmon has its dashes replaced there.
        yield read_text(path.with_name("type")).replace("-", "_"), path


def _this_core(procfs: Path) -> int:
    """Return the number of the core that the calling thread ran on last, else of the first that it may use."""
    fields = read_text(procfs / "thread-self" / "stat").rpartition(")")[2].split()
    if len(fields) > 36:  # The 39th of all, of which two come before the state (proc_pid_stat(5)).
        return int(fields[36])
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def _cpufreq(core: int, sysfs: Path) -> Path:
    return sysfs / "devices/system/cpu" / f"cpu{core}" / "cpufreq"


def _frequency_ghz(core: int, sysfs: Path, procfs: Path) -> float | None:
    folder = _cpufreq(core, sysfs)
    if not folder.is_dir():
        return _counted_ghz(core, read_text(procfs / "cpuinfo"))
    clocks = (read_number(folder / name) for name in _CLOCKS)
    return next((khz / 1e6 for khz in clocks if khz), None)


def _counted_ghz(core: int, cpuinfo: str) -> float | None:
    """Return the clock in ``/proc/cpuinfo`` if the kernel counted it: without ``aperfmperf`` it is the nominal one."""
    for block in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        if facts.get("processor") == str(core) and "aperfmperf" in facts.get("flags", "").split():
            return float(facts["cpu MHz"]) / 1e3 if "cpu MHz" in facts else None
    return None


def _throttled(sysfs: Path) -> bool | None:
    """Return what a Raspberry Pi's firmware says; no other system that is known tells as plainly."""
    text = read_text(sysfs / "devices/platform/soc/soc:firmware/get_throttled")
    try:
        return bool(int(text, 16) & _LIMITED_NOW)
    except ValueError:
        return None
