"""Take raw timing samples of a call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

FEWEST_SAMPLES = 5
"""Samples that are taken even when the time cap is passed: fewer make no median."""
BLOCK_S = 0.05


def time_calls(
    call: Callable[[], object],
    *,
    warmup: int,
    repeats: int,
    cap_s: float = float("inf"),
    between: Callable[[], object] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> tuple[float, ...]:
    """Return the milliseconds of each of up to ``repeats`` calls, in the order taken.

    Args:
        call: What is timed.
        warmup: Calls before the first sample; cut short when they alone have used up half of ``cap_s``.
        repeats: Most samples (>= 1).
        cap_s: Stop after this many seconds, warm-up included, once ``FEWEST_SAMPLES`` are there.
        between: Called about every ``BLOCK_S`` seconds between two samples, e.g. to time a reference kernel.
        clock: Seconds, monotonic.
    """
    start_s = clock()
    for _ in range(warmup):
        call()
        if clock() - start_s > cap_s / 2:
            break
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _samples(call, repeats, start_s + cap_s, between, clock)
    finally:
        if collecting:
            gc.enable()


def _samples(
    call: Callable[[], object],
    repeats: int,
    end_s: float,
    between: Callable[[], object] | None,
    clock: Callable[[], float],
) -> tuple[float, ...]:
    samples_ms: list[float] = []
    block_s = clock()
    while len(samples_ms) < repeats:
        before_s = clock()
        call()
        after_s = clock()
        samples_ms.append((after_s - before_s) * 1e3)
        if after_s > end_s and len(samples_ms) >= FEWEST_SAMPLES:
            break
        if between is not None and after_s - block_s > BLOCK_S:
            between()
            call()  # What ran in between has emptied the caches.
            block_s = clock()
    return tuple(samples_ms)
