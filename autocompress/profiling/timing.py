"""Take raw timing samples of a call."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import NamedTuple

FEWEST_SAMPLES = 5
"""Samples that are taken even when the time cap is passed: fewer make no median."""
BLOCK_S = 0.05
WARM_UP_CALLS = 5
"""Fewest calls of a block of the warm-up, which also takes ``BLOCK_S`` at least: clocks rise within milliseconds."""
STILL_FALLING = 0.02
"""Share by which the median of a block of the warm-up may lie below that of the block before, and count as stable."""


@dataclass(frozen=True)
class Timing:
    """How an artifact is timed, on one batch of random inputs.

    Attributes:
        threads: Threads of the engine.
        vocabulary: Rows of the token embedding; ids are drawn below it. What reads pixels has none.
        warmup: Fewest runs before the first sample; there are more until they stop becoming faster.
        repeats: Most samples.
        cap_s: Seconds after which no further sample is taken.
        seed: Of the inputs.
        timeout_s: Seconds, beside those of the sustained run, after which the run counts as hung.
        sustained_s: Seconds for which it then runs without a pause, to see what lasting load makes of it.
    """

    threads: int
    vocabulary: int
    warmup: int = 3
    repeats: int = 50
    cap_s: float = 2.0
    seed: int = 0
    timeout_s: float = 120.0
    sustained_s: float = 0.0

    @property
    def limit_s(self) -> float:
        """Seconds after which all of it must be over."""
        return self.timeout_s + self.sustained_s


class Times(NamedTuple):
    """Of each call, in the order made: its milliseconds, and how many of them it waited for a processor."""

    samples_ms: tuple[float, ...]
    waited_ms: tuple[float, ...]


class WarmUp(NamedTuple):
    """How an artifact was warmed up: how often it ran, and whether it stopped becoming faster."""

    runs: int
    stable: bool


def never_waits() -> float:
    """Stand in for ``drift.waiting_clock`` where the system does not tell."""
    return 0.0


def warm_up(
    call: Callable[[], object],
    *,
    fewest: int,
    cap_s: float = float("inf"),
    clock: Callable[[], float] = perf_counter,
) -> WarmUp:
    """Run ``call`` until its times stop falling: a block's median is within ``STILL_FALLING`` of the one's before.

    Times that rise are no reason to go on: nothing becomes slower by warming up, but by heat or neighbours.

    Args:
        call: What is run.
        fewest: Calls that are made at least.
        cap_s: Seconds after which it ends in any case.
        clock: Seconds, monotonic.
    """
    now_s = clock()
    end_s, runs, before_s = now_s + cap_s, 0, float("inf")
    while True:
        block_s, times_s = now_s, array("d")
        while len(times_s) < WARM_UP_CALLS or now_s - block_s < BLOCK_S:
            call_s = clock()
            call()
            now_s = clock()
            times_s.append(now_s - call_s)
            if now_s > end_s:
                return WarmUp(runs + len(times_s), stable=False)
        runs += len(times_s)
        median_s = median(times_s)
        if runs >= fewest and median_s >= (1 - STILL_FALLING) * before_s:
            return WarmUp(runs, stable=True)
        before_s = median_s


def time_calls(
    call: Callable[[], object],
    *,
    warmup: int,
    repeats: int,
    cap_s: float = float("inf"),
    between: Callable[[], object] | None = None,
    clock: Callable[[], float] = perf_counter,
    waited: Callable[[], float] = never_waits,
) -> Times:
    """Time up to ``repeats`` calls.

    Args:
        call: What is timed.
        warmup: Calls before the first sample; cut short when they alone have used up half of ``cap_s``.
        repeats: Most samples (>= 1).
        cap_s: Stop after this many seconds, warm-up included, once ``FEWEST_SAMPLES`` are there.
        between: Called about every ``BLOCK_S`` seconds between two samples, e.g. to time a reference kernel.
        clock: Seconds, monotonic.
        waited: Seconds so far in which this thread was ready to run but another held the processor.
    """
    start_s = clock()
    for _ in range(warmup):
        call()
        if clock() - start_s > cap_s / 2:
            break
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _samples(call, repeats, start_s + cap_s, between, clock, waited)
    finally:
        if collecting:
            gc.enable()


def _samples(
    call: Callable[[], object],
    repeats: int,
    end_s: float,
    between: Callable[[], object] | None,
    clock: Callable[[], float],
    waited: Callable[[], float],
) -> Times:
    samples_s: list[float] = []
    waits_s: list[float] = []
    block_s = clock()
    while len(samples_s) < repeats:
        waited_s, before_s = waited(), clock()
        call()
        after_s = clock()
        samples_s.append(after_s - before_s)
        waits_s.append(waited() - waited_s)
        if after_s > end_s and len(samples_s) >= FEWEST_SAMPLES:
            break
        if between is not None and after_s - block_s > BLOCK_S:
            between()
            call()  # What ran in between has emptied the caches.
            block_s = clock()
    return Times(tuple(1e3 * time_s for time_s in samples_s), tuple(1e3 * time_s for time_s in waits_s))
