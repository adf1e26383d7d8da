"""What an artifact takes after minutes under load, beside what it takes in a burst: small boards heat up and slow down.

The figures are raw medians, one an interval, so that a run of an hour needs no more room than one of a minute.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

from autocompress.cost import Measurement
from autocompress.profiling.conditions import ProcessorState, read_state

INTERVAL_S = 1.0
MOST_INTERVALS = 300
"""Longer runs have longer intervals."""
BURST_S = 5.0
"""The burst: so many seconds from the start, but at most the first quarter."""
LAST_SHARE = 0.25
"""The part of the time from which the sustained figure is taken."""


@dataclass(frozen=True)
class Interval:
    """A stretch of a sustained run.

    Attributes:
        second: When its first inference began, in seconds from the start of the run.
        p50_ms: Median time of its inferences, in milliseconds.
        runs: How many there were (>= 1).
        frequency_ghz: Clock at its end, ``None`` where unknown.
        temperature_c: Of the processor at its end, ``None`` where unknown.
    """

    second: float
    p50_ms: float
    runs: int
    frequency_ghz: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class Sustained:
    """A run without a pause.

    Attributes:
        seconds: What it took in all.
        series: Its intervals in time order (at least one).
    """

    seconds: float
    series: tuple[Interval, ...]

    @property
    def burst_p50_ms(self) -> float:
        """Median of the intervals that began in the first seconds, in milliseconds."""
        end_s = min(BURST_S, self.seconds * LAST_SHARE)
        return median(each.p50_ms for each in self.series if each.second == 0 or each.second < end_s)

    @property
    def sustained_p50_ms(self) -> float:
        """Median of the intervals that began in the last quarter, or of the last one, in milliseconds."""
        start_s = self.seconds * (1 - LAST_SHARE)
        last = [each.p50_ms for each in self.series if each.second >= start_s]
        return median(last or [self.series[-1].p50_ms])

    @property
    def slowdown(self) -> float:
        """How much longer an inference takes under lasting load, as a share of the burst (0.4: 40 % longer)."""
        return self.sustained_p50_ms / self.burst_p50_ms - 1

    def to_json(self) -> str:
        """Write what ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Sustained:
        """Read what ``to_json`` wrote."""
        values = json.loads(text)
        return cls(values["seconds"], tuple(Interval(**each) for each in values["series"]))

    @classmethod
    def of(cls, measurement: Measurement) -> Sustained | None:
        """Return the sustained run beside a measurement, if its ``Timing`` asked for one."""
        text = measurement.provenance.get("sustained")
        return None if text is None else cls.from_json(text)


def describe(lasting: Sustained) -> str:
    """Word it, e.g. ``41.2 ms after 5 minutes under load, 33.0 ms at first (25 % slower)``."""
    change = "slower" if lasting.slowdown >= 0 else "faster"
    times = f"{lasting.sustained_p50_ms:.1f} ms after {lasting.seconds / 60:.3g} minutes under load"
    return f"{times}, {lasting.burst_p50_ms:.1f} ms at first ({100 * abs(lasting.slowdown):.0f} % {change})"


def sustain(
    call: Callable[[], object],
    *,
    seconds: float,
    clock: Callable[[], float] = perf_counter,
    state: Callable[[], ProcessorState] = read_state,
) -> Sustained:
    """Run ``call`` again and again for about so many seconds, at least once.

    Args:
        call: What is run.
        seconds: The run ends with the first call that ends after them.
        clock: Seconds, monotonic.
        state: How the processor is now; asked once an interval.
    """
    length_s = max(INTERVAL_S, seconds / MOST_INTERVALS)
    start_s = clock()
    series: list[Interval] = []
    while not series or clock() - start_s < seconds:
        began_s = clock() - start_s if series else 0.0
        times_ms = _interval(call, start_s + min(began_s + length_s, seconds), clock)
        now = state()
        series.append(Interval(began_s, median(times_ms), len(times_ms), now.frequency_ghz, now.temperature_c))
    return Sustained(clock() - start_s, tuple(series))


def _interval(call: Callable[[], object], end_s: float, clock: Callable[[], float]) -> Sequence[float]:
    times_ms = array("d")
    before_s = clock()
    while not times_ms or before_s < end_s:
        call()
        after_s = clock()
        times_ms.append(1e3 * (after_s - before_s))
        before_s = after_s
    return times_ms
