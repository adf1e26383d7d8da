"""Resident memory of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the highest resident memory that this process ever had, in bytes."""
    if _STATUS.exists():
        # Not ru_maxrss: Linux lets a child inherit there what its parent held when it forked.
        return parse_peak_bytes(_STATUS.read_text())
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def parse_peak_bytes(status: str) -> int:
    """Read the high-water mark out of a ``/proc/<pid>/status`` text, in bytes."""
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
