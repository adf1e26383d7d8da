"""Who works on a trial, and whether he is still there.

A worker writes down machine and process, which tells on the same machine at once whether it exists, and from time to
time that it is still at it (a beat), which is what those on other machines see. A beat counts as old by the clock of
the one who waits for it, so clocks need not agree. All of it stands in the trial's attributes: Optuna's own heartbeat
is a table of its database class, which neither its journal nor its proxy has.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial

BEAT_S = 15.0
"""Seconds between two signs of life."""
GRACE_S = 75.0
"""Seconds without one after which a worker on another machine counts as lost."""
CLOCK_TICK_S = 2.0
"""How far apart two readings of when a process began may lie."""

_here: set[str] = set()
"""Marks of the workers of this process that are at it: one that ended with an error may have left a trial behind."""


@dataclass(frozen=True)
class Worker:
    """One that works on trials.

    Attributes:
        mark: Different for each.
        machine: Name, boot and process namespace of the machine: who agrees in it sees the other's process.
        pid: Of its process.
        started_s: When that began, in seconds since 1970, against numbers that are used again.
    """

    mark: str
    machine: str
    pid: int
    started_s: float

    @property
    def host(self) -> str:
        """The machine's name."""
        return self.machine.split()[0]

    def to_attribute(self) -> dict[str, object]:
        """Return JSON values; ``worker_of`` reads them back."""
        return asdict(self)

    def gone(self) -> bool:
        """Whether it is known not to exist any more; of other machines nothing is known."""
        if self.machine != machine():
            return False
        if self.pid == os.getpid():
            return self.mark not in _here
        try:
            process = psutil.Process(self.pid)
            another = abs(process.create_time() - self.started_s) > CLOCK_TICK_S
            return bool(another or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:  # There is one, and it is somebody else's.
            return False


@lru_cache(maxsize=1)
def machine() -> str:
    """Return what processes of this machine alone have in common."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.is_file() and namespace.is_symlink():
        return f"{platform.node() or '?'} {boot.read_text().strip()} {namespace.readlink()}"
    return f"{platform.node() or '?'} {psutil.boot_time():.0f}"


@contextmanager
def working() -> Iterator[Worker]:
    """Yield a new worker of this process, which is gone afterwards."""
    worker = Worker(uuid.uuid4().hex, machine(), os.getpid(), psutil.Process().create_time())
    _here.add(worker.mark)
    try:
        yield worker
    finally:
        _here.discard(worker.mark)


def worker_of(trial: FrozenTrial) -> Worker | None:
    """Return who works on a trial, if it says so."""
    known = trial.user_attrs.get("worker")
    return None if known is None else Worker(**known)


class Watch:
    """Tells of trials in work whether their workers are lost.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[int, tuple[object, float]] = {}

    def lost(self, trial: FrozenTrial) -> bool:
        """Return whether nobody works on ``trial``, which is not finished, any more."""
        worker = worker_of(trial)
        if worker is None or worker.gone():
            return True
        if worker.machine == machine():
            return False
        beat, now = trial.user_attrs.get("beat"), self._clock()
        last, since = self._heard.get(trial.number, (None, now))
        if trial.number not in self._heard or beat != last:
            self._heard[trial.number] = (beat, since := now)
        return now - since > GRACE_S

    def begin_anew(self) -> None:
        """Hear everybody once more before anybody counts as lost."""
        self._heard.clear()

    def forget(self, number: int) -> None:
        """Drop what is remembered of a trial that is finished."""
        self._heard.pop(number, None)
