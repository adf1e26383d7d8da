"""Let no process outlive the one that started it: what runs on after a kill disturbs the next measurement."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process when ``parent``, the process that started it, ends in whatever way. Linux only."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It ended before the kernel was asked.
        os.kill(os.getpid(), signal.SIGKILL)
