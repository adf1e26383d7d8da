from __future__ import annotations

import gc
from itertools import cycle

import pytest

from autocompress.profiling.timing import (
    BLOCK_S,
    FEWEST_SAMPLES,
    WARM_UP_CALLS,
    Timing,
    WarmUp,
    time_calls,
    warm_up,
)
from tests.profiling.clocks import Clock, taking


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


def test_a_call_that_is_stable_at_once_is_warmed_up_for_two_blocks():
    clock = Clock()
    assert warm_up(taking(clock, 0.125), fewest=1, clock=clock) == WarmUp(2 * WARM_UP_CALLS, stable=True)


def test_a_warm_up_makes_as_many_calls_as_are_asked_for():
    clock = Clock()
    # Blocks are whole.
    assert warm_up(taking(clock, 0.125), fewest=22, clock=clock) == WarmUp(25, stable=True)


def test_a_warm_up_goes_on_while_times_fall():
    clock = Clock()
    falling = [0.5 * 0.9**block for block in range(8) for _ in range(WARM_UP_CALLS)]
    warm = warm_up(taking(clock, *falling), fewest=1, clock=clock)
    # The ninth block is the first that is as long as the one before.
    assert warm == WarmUp(9 * WARM_UP_CALLS, stable=True)


def test_quick_calls_are_warmed_up_until_clocks_can_have_risen():
    clock = Clock()
    start_s = clock()
    warm = warm_up(taking(clock, 2**-12), fewest=1, clock=clock)
    assert warm.stable
    assert 2 * BLOCK_S <= clock() - start_s < 2 * BLOCK_S + 3 * 2**-12


def test_noise_is_no_reason_to_go_on():
    clock, noise = Clock(), cycle([0.25, 0.3, 0.2, 0.75, 0.24, 0.26, 0.31])

    def call() -> None:
        clock.now_s += next(noise)

    assert warm_up(call, fewest=1, clock=clock).stable
    assert clock() - 100 < 10


def test_times_that_rise_are_no_reason_to_go_on():
    clock = Clock()
    rising = [0.125 + 0.01 * number for number in range(100)]
    assert warm_up(taking(clock, *rising), fewest=1, clock=clock) == WarmUp(2 * WARM_UP_CALLS, stable=True)


def test_a_call_that_is_never_stable_is_warmed_up_until_the_cap():
    clock = Clock()
    falling = [0.5 * 0.99**number for number in range(1000)]
    warm = warm_up(taking(clock, *falling), fewest=1, cap_s=10.0, clock=clock)
    assert not warm.stable
    assert sum(falling[: warm.runs - 1]) <= 10.0 < sum(falling[: warm.runs])


def test_the_time_of_a_sustained_run_is_beside_the_limit_of_the_rest():
    assert Timing(1, 50, timeout_s=30, sustained_s=600).limit_s == 630
    assert Timing(1, 50, timeout_s=30).limit_s == 30


def test_garbage_is_collected_again_after_a_call_that_fails():
    def call() -> None:
        assert not gc.isenabled()
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        time_calls(call, warmup=0, repeats=1)
    assert gc.isenabled()
