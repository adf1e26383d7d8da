"""Notice that the machine, not the model, became slower: a reference kernel is timed beside every measurement."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import median

import numpy as np

from autocompress.cost import Failure, Measurement
from autocompress.profiling.episodes import Conditions, Episode, Observation, find_episodes, marks
from autocompress.profiling.timing import never_waits, time_calls

REFERENCE_WIDTH = 256
TOLERANCE = 0.05
"""How much slower than the run's median reference that of a single measurement may be: a neighbour on the other thread
of a core slows the reference by less than models."""
_SCHEDSTAT = Path("/proc/self/schedstat")


class Reference:
    """Times a product of two f32 matrices of ``REFERENCE_WIDTH`` squared (34 MFLOP) whenever it is called.

    Set numpy's threads to one before numpy is imported, else the number of free cores is measured too.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a, self._b = rng.standard_normal((2, REFERENCE_WIDTH, REFERENCE_WIDTH), dtype=np.float32)
        self._out = np.empty_like(self._a)
        self.times_ms: list[float] = []

    def __call__(self) -> None:
        """Take a few times and keep them."""
        times = time_calls(lambda: np.matmul(self._a, self._b, out=self._out), warmup=1, repeats=3)
        self.times_ms += times.samples_ms

    @property
    def median_ms(self) -> float:
        """Median of the times so far, in milliseconds."""
        return median(self.times_ms)


def waiting_clock() -> Callable[[], float]:
    """Return a clock of how long the calling thread was ready to run but did not, in seconds (0 where unknown)."""
    if not _SCHEDSTAT.exists():
        return never_waits
    descriptor = os.open(_SCHEDSTAT, os.O_RDONLY)  # Read anew through one descriptor: about a microsecond.
    return lambda: int(os.pread(descriptor, 64, 0).split()[1]) / 1e9


def reference_ms(measurement: Measurement) -> float:
    """Return the time of the reference kernel beside ``measurement``, in milliseconds (NaN if it has none)."""
    return float(measurement.provenance.get("reference_ms", "nan"))


def waited_ms(measurement: Measurement) -> tuple[float, ...]:
    """Return of each sample how long it waited for a processor, in milliseconds (empty if not recorded)."""
    text = measurement.provenance.get("waited_ms", "")
    return tuple(map(float, text.split())) if text else ()


def waited_share(measurement: Measurement) -> float:
    """Return the share of all samples' time that was spent waiting for a processor."""
    return sum(waited_ms(measurement)) / sum(measurement.samples_ms)


def without_waiting(measurement: Measurement) -> Measurement:
    """Return the same measurement with the waiting of each sample taken off its time.

    What other processes on a busy machine take is no property of the model: fit predictors on this. A verdict
    shows the raw samples. Only the waiting of the engine's calling thread is known.
    """
    waits = waited_ms(measurement)
    if not waits:
        return measurement
    samples_ms = tuple(sample - wait for sample, wait in zip(measurement.samples_ms, waits, strict=True))
    kept = {key: value for key, value in measurement.provenance.items() if key != "waited_ms"}
    share = f"{waited_share(measurement):.4f}"
    return replace(measurement, samples_ms=samples_ms, provenance={**kept, "waiting_taken_off": share})


def observe(results: Mapping[str, Measurement | Failure]) -> tuple[Observation, ...]:
    """Return measurements, in the order of ``results``, as a run; failures are left out.

    Start, frequency and temperature are those of the provenance, where a worker or board has put them there
    (``start_s``, ``frequency_ghz``, ``temperature_c``); without a start, measurements stand one second apart.
    """
    measured = [result for result in results.values() if isinstance(result, Measurement)]
    return tuple(_observation(position, measurement) for position, measurement in enumerate(measured))


def _observation(position: int, measurement: Measurement) -> Observation:
    def said(key: str) -> float | None:
        value = float(measurement.provenance.get(key, "nan"))
        return None if isnan(value) else value

    start_s = said("start_s")
    return Observation(
        start_s=float(position) if start_s is None else start_s,
        latency_ms=measurement.latency_p50_ms,
        reference_ms=said("reference_ms"),
        conditions=Conditions(said("frequency_ghz"), said("temperature_c"), waited_share(measurement)),
    )


def slow_episodes(results: Mapping[str, Measurement | Failure]) -> tuple[Episode, ...]:
    """Return when the device was slow; samples of an episode count the measurements of ``results`` in their order."""
    return find_episodes(observe(results))


def drifted(results: Mapping[str, Measurement | Failure], *, tolerance: float = TOLERANCE) -> tuple[str, ...]:
    """Return the names whose measurement was disturbed, the most disturbed first.

    These are those that lie in an episode (see ``episodes.find_episodes``: the reference kernel was slow for a stretch,
    or the measurement waited for a processor), and single ones whose reference kernel was more than ``tolerance``
    slower than the median of all.
    """
    measured = {name: result for name, result in results.items() if isinstance(result, Measurement)}
    if not measured:
        return ()
    usual_ms = median(map(reference_ms, measured.values()))
    inside = marks(slow_episodes(measured), len(measured))
    disturbed = [
        name
        for (name, result), slow in zip(measured.items(), inside, strict=True)
        if slow or reference_ms(result) > (1 + tolerance) * usual_ms
    ]
    return tuple(sorted(disturbed, key=lambda name: -disturbance(measured[name])))


def disturbance(measurement: Measurement) -> float:
    """Return how disturbed a measurement was: the milliseconds of its reference kernel, stretched by waiting."""
    return reference_ms(measurement) * (1 + waited_share(measurement))


def remeasure_drifted(
    results: Mapping[str, Measurement | Failure],
    measure: Callable[[str], Measurement | Failure],
    *,
    at_most: int,
    tolerance: float = TOLERANCE,
) -> dict[str, Measurement | Failure]:
    """Measure again what was measured while the machine was slow or busy, the most disturbed first.

    Of two measurements of one name the less disturbed is kept.

    Args:
        results: What was measured, by name.
        measure: Measures one name again.
        at_most: Most measurements that are made again; what still drifts after them stays as it is.
        tolerance: See ``drifted``.
    """
    kept = dict(results)
    for name in drifted(results, tolerance=tolerance)[:at_most]:
        again, before = measure(name), kept[name]
        assert isinstance(before, Measurement)
        if isinstance(again, Measurement) and disturbance(again) < disturbance(before):
            kept[name] = again
    return kept
