"""Notice that the machine, not the model, became slower: a reference kernel is timed beside every measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from autocompress.cost import Failure, Measurement
from autocompress.profiling.timing import time_calls

REFERENCE_WIDTH = 256
TOLERANCE = 0.15
"""How much slower than the run's median reference a measurement's own may be."""
WAITED = 0.05
"""Share of the time for which a measurement may wait for a processor that other processes hold."""
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
        self.times_ms += time_calls(lambda: np.matmul(self._a, self._b, out=self._out), warmup=1, repeats=3)

    @property
    def median_ms(self) -> float:
        """Median of the times so far, in milliseconds."""
        return median(self.times_ms)


def waited_s() -> float:
    """Return how long this process's main thread was ready to run but did not, in seconds (NaN where unknown)."""
    return int(_SCHEDSTAT.read_text().split()[1]) / 1e9 if _SCHEDSTAT.exists() else float("nan")


def reference_ms(measurement: Measurement) -> float:
    """Return the time of the reference kernel beside ``measurement``, in milliseconds (NaN if it has none)."""
    return float(measurement.provenance.get("reference_ms", "nan"))


def waited_share(measurement: Measurement) -> float:
    """Return the share of the sampling time in which the engine waited for a processor (NaN if not known)."""
    return float(measurement.provenance.get("waited_share", "nan"))


def drifted(results: Mapping[str, Measurement | Failure], *, tolerance: float = TOLERANCE) -> tuple[str, ...]:
    """Return the names whose measurement was disturbed.

    These are those whose reference kernel was more than ``tolerance`` slower than the median of all, or which waited
    for a processor for more than ``WAITED`` of the time.
    """
    measured = {name: result for name, result in results.items() if isinstance(result, Measurement)}
    if not measured:
        return ()
    usual_ms = median(reference_ms(result) for result in measured.values())
    return tuple(
        name
        for name, result in measured.items()
        if reference_ms(result) > (1 + tolerance) * usual_ms or waited_share(result) > WAITED
    )


def remeasure_drifted(
    results: Mapping[str, Measurement | Failure],
    measure: Callable[[str], Measurement | Failure],
    *,
    attempts: int = 2,
    tolerance: float = TOLERANCE,
) -> dict[str, Measurement | Failure]:
    """Measure again what was measured while the machine was slow or busy.

    Of two measurements of one name the less disturbed is kept.

    Args:
        results: What was measured, by name.
        measure: Measures one name again.
        attempts: Rounds of measuring again; what still drifts after them stays as it is.
        tolerance: See ``drifted``.
    """
    kept = dict(results)
    for _ in range(attempts):
        for name in drifted(kept, tolerance=tolerance):
            again, before = measure(name), kept[name]
            assert isinstance(before, Measurement)
            if isinstance(again, Measurement) and _disturbance(again) < _disturbance(before):
                kept[name] = again
    return kept


def _disturbance(measurement: Measurement) -> float:
    """Return the time of the reference kernel, stretched by the share of the time that was spent waiting."""
    waited = waited_share(measurement)
    return reference_ms(measurement) * (1 + (waited if waited == waited else 0.0))
