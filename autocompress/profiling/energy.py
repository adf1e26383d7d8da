"""Energy of an inference, where the system can tell it; otherwise there is none. What idling takes is not taken off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Protocol

from autocompress.cost import Measurement
from autocompress.profiling.sensors import Counter, Rail, find_counters, find_rail
from autocompress.profiling.sysfs import SYS

METERED_S = 1.0
"""Seconds for which an artifact runs to be metered: a sensor is averaged over many of its readings."""
FEWEST_RUNS = 5
PERIOD_S = 0.05
"""Seconds between two readings of a power sensor; the sensors themselves average over 1 to 100 ms."""
POWER_SOURCE = "power_w of the profile"


class Meter(Protocol):
    """Tells the energy of a stretch of time."""

    @property
    def source(self) -> str:
        """What the energy is read from."""

    def start(self) -> None:
        """Begin a stretch."""

    def stop(self, seconds: float) -> float | None:
        """End it after so many seconds and return its energy in joules, ``None`` if it could not be read."""


@dataclass
class CounterMeter:
    """Reads counters of energy before and after.

    Attributes:
        counters: They are summed, e.g. one for each processor package.
    """

    counters: tuple[Counter, ...]
    _before_uj: list[float | None] = field(default_factory=list)

    @property
    def source(self) -> str:
        """See ``Meter``."""
        return " + ".join(counter.source for counter in self.counters)

    def start(self) -> None:
        """See ``Meter``."""
        self._before_uj = [counter.read_uj() for counter in self.counters]

    def stop(self, seconds: float) -> float | None:
        """See ``Meter``. A counter may begin anew once in between."""
        total_uj = 0.0
        for counter, before_uj in zip(self.counters, self._before_uj, strict=True):
            after_uj = counter.read_uj()
            if before_uj is None or after_uj is None:
                return None
            total_uj += counter.between_uj(before_uj, after_uj)
        return total_uj / 1e6


@dataclass
class RailMeter:
    """Reads a power sensor from time to time in a thread of its own, and takes the mean.

    Attributes:
        rail: The sensor.
        period_s: Seconds between two readings.
    """

    rail: Rail
    period_s: float = PERIOD_S
    _watts: list[float] = field(default_factory=list)
    _over: Event = field(default_factory=Event)
    _thread: Thread | None = None

    @property
    def source(self) -> str:
        """See ``Meter``."""
        return self.rail.source

    def start(self) -> None:
        """See ``Meter``."""
        self._watts.clear()
        self._over.clear()
        self._read()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> float | None:
        """See ``Meter``."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._read()
        return seconds * sum(self._watts) / len(self._watts) if self._watts else None

    def _watch(self) -> None:
        while not self._over.wait(self.period_s):
            self._read()

    def _read(self) -> None:
        watts = self.rail.read_w()
        if watts is not None:
            self._watts.append(watts)


def find_meter(*, sysfs: Path = SYS) -> Meter | None:
    """Return what tells energy here, counters before a sensor of the supply; ``None`` if nothing does."""
    counters = find_counters(sysfs=sysfs)
    if counters:
        return CounterMeter(counters)
    rail = find_rail(sysfs=sysfs)
    return None if rail is None else RailMeter(rail)


def metered_mj(
    call: Callable[[], object],
    meter: Meter,
    *,
    seconds: float = METERED_S,
    clock: Callable[[], float] = perf_counter,
) -> float | None:
    """Run ``call`` without a pause and return the energy of one run in millijoules, ``None`` if it could not be read.

    Args:
        call: What is run, at least ``FEWEST_RUNS`` times. Nothing else may run in between, as it would be metered too.
        meter: Tells the energy of everything behind its sensor or counter.
        seconds: For about how long.
        clock: Seconds, monotonic.
    """
    runs = 0
    start_s = clock()
    meter.start()
    try:
        while runs < FEWEST_RUNS or clock() - start_s < seconds:
            call()
            runs += 1
    finally:
        joules = meter.stop(clock() - start_s)
    return None if joules is None else 1e3 * joules / runs


def from_power(power_w: float, latency_ms: float) -> float:
    """Return the energy of an inference in millijoules of what a device takes under load, in watts, and its latency."""
    return power_w * latency_ms


def with_power(measurement: Measurement, power_w: float | None) -> Measurement:
    """Return the measurement with an energy: its own, else that of a profile's ``power_w``, where there is either."""
    if measurement.energy_mj is not None or power_w is None:
        return measurement
    energy_mj = from_power(power_w, measurement.latency_p50_ms)
    return replace(
        measurement, energy_mj=energy_mj, provenance={**measurement.provenance, "energy_source": POWER_SOURCE}
    )
