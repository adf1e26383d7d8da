from __future__ import annotations

import gc
from itertools import count

import pytest

from autocompress.profiling.timing import BLOCK_S, FEWEST_SAMPLES, time_calls


class Clock:
    """Stands still unless told to go on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def taking(clock: Clock, *times_s: float):
    """A call that takes these times in turn, the last one for ever."""
    numbers = count()

    def call() -> None:
        clock.now_s += times_s[min(next(numbers), len(times_s) - 1)]

    return call


def test_samples_are_the_milliseconds_of_each_call_in_order_without_the_warm_up():
    clock = Clock()
    times = time_calls(taking(clock, 9.0, 8.0, 0.25, 0.5, 0.125), warmup=2, repeats=3, clock=clock)
    assert times.samples_ms == (250.0, 500.0, 125.0)


def test_waiting_is_recorded_beside_each_sample():
    clock, waited = Clock(), Clock()

    def call() -> None:
        clock.now_s += 0.5
        waited.now_s += 0.125

    times = time_calls(call, warmup=1, repeats=2, clock=clock, waited=waited)
    assert times.samples_ms == (500.0, 500.0)
    assert times.waited_ms == (125.0, 125.0)


def test_the_cap_counts_from_the_start_of_the_warm_up():
    clock = Clock()
    times = time_calls(taking(clock, 0.125), warmup=2, repeats=100, cap_s=1.0, clock=clock)
    # Two calls warm up; the cap is passed when the ninth call ends, at 1.125 s.
    assert len(times.samples_ms) == 7


def test_a_slow_call_is_still_sampled_often_enough_for_a_median():
    clock = Clock()
    times = time_calls(taking(clock, 10.0), warmup=5, repeats=100, cap_s=1.0, clock=clock)
    assert len(times.samples_ms) == FEWEST_SAMPLES


def test_a_warm_up_that_uses_up_half_the_cap_is_cut_short():
    clock = Clock()
    start_s = clock.now_s
    time_calls(taking(clock, 0.375), warmup=1000, repeats=1, cap_s=1.0, clock=clock)
    assert clock.now_s - start_s == 3 * 0.375


def test_something_else_can_run_between_blocks_of_samples_and_is_not_timed():
    clock, between = Clock(), []

    def pause() -> None:
        between.append(clock.now_s)
        clock.now_s += 7.0

    times = time_calls(taking(clock, BLOCK_S), warmup=0, repeats=6, between=pause, clock=clock)
    assert len(between) >= 2
    assert times.samples_ms == pytest.approx([1e3 * BLOCK_S] * 6)


def test_garbage_is_collected_again_after_a_call_that_fails():
    def call() -> None:
        assert not gc.isenabled()
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        time_calls(call, warmup=0, repeats=1)
    assert gc.isenabled()
