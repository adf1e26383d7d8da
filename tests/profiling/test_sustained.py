from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.cost import Measurement
from autocompress.profiling.conditions import ProcessorState
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.sustained import MOST_INTERVALS, Interval, Sustained, describe, sustain
from autocompress.profiling.timing import Timing
from tests.profiling.clocks import Clock, taking

COOL, HOT = ProcessorState(1.8, 50.0), ProcessorState(1.0, 82.0)


def throttling(clock: Clock, *, after_s: float, slower: float):
    """A call of 1/16 s that takes ``slower`` times as long from ``after_s`` on."""
    start_s = clock()

    def call() -> None:
        clock.now_s += 0.0625 * (1.0 if clock.now_s - start_s < after_s else slower)

    return call


def test_a_device_that_throttles_is_slower_after_a_while_and_the_series_shows_when():
    clock = Clock()
    start_s = clock()
    run = sustain(
        throttling(clock, after_s=40, slower=1.4),
        seconds=120,
        clock=clock,
        state=lambda: COOL if clock() - start_s < 40 else HOT,
    )
    assert run.burst_p50_ms == pytest.approx(62.5)
    assert run.sustained_p50_ms == pytest.approx(1.4 * 62.5)
    assert run.slowdown == pytest.approx(0.4)
    assert 120 <= run.seconds < 121
    slow = next(each for each in run.series if each.p50_ms > 63)
    assert 39 <= slow.second <= 41
    assert (run.series[0].frequency_ghz, run.series[0].temperature_c) == (1.8, 50.0)
    assert (run.series[-1].frequency_ghz, run.series[-1].temperature_c) == (1.0, 82.0)


def test_a_device_that_keeps_its_speed_has_no_slowdown():
    clock = Clock()
    run = sustain(taking(clock, 0.25), seconds=60, clock=clock, state=ProcessorState)
    assert run.slowdown == 0
    assert sum(each.runs for each in run.series) == 60 / 0.25
    assert [each.second for each in run.series] == list(range(60))


def test_a_long_run_needs_no_more_room_than_a_short_one():
    clock = Clock()
    run = sustain(taking(clock, 0.5), seconds=3600, clock=clock, state=ProcessorState)
    assert 0.9 * MOST_INTERVALS < len(run.series) <= MOST_INTERVALS
    assert sum(each.runs for each in run.series) == 3600 / 0.5


def test_a_call_longer_than_the_run_is_made_once():
    clock = Clock()
    run = sustain(taking(clock, 30.0), seconds=10, clock=clock, state=ProcessorState)
    assert run == Sustained(30.0, (Interval(0.0, 30_000.0, 1),))
    assert (run.burst_p50_ms, run.sustained_p50_ms) == (30_000, 30_000)


def test_a_run_survives_its_json_and_is_found_beside_its_measurement():
    run = Sustained(2.0, (Interval(0.0, 1.5, 7, 1.8, 50.5), Interval(1.0, 2.5, 4)))
    assert Sustained.from_json(run.to_json()) == run
    bare = Measurement((1.0,), 2, 1, 1, "host", "onnxruntime", 1)
    assert Sustained.of(bare) is None
    assert Sustained.of(replace(bare, provenance={"sustained": run.to_json()})) == run


def test_a_real_artifact_runs_for_two_seconds_in_a_process_of_its_own(tiny):
    # Its two seconds do not count against the limit.
    timing = Timing(1, 50, warmup=1, repeats=6, sustained_s=2.0)
    result = LocalRunner("host").run(tiny, timing)
    assert isinstance(result, Measurement), result
    run = Sustained.of(result)
    assert run.seconds >= 2.0
    assert len(run.series) >= 2
    assert run.burst_p50_ms > 0
    assert len(result.samples_ms) == 6


@pytest.mark.parametrize(("last_ms", "word"), [(41.25, "25 % slower"), (29.7, "10 % faster")])
def test_a_lasting_load_is_worded_by_both_figures(last_ms, word):
    run = Sustained(300.0, (Interval(0.0, 33.0, 30), Interval(299.0, last_ms, 24)))
    assert describe(run) == f"{last_ms:.1f} ms after 5 minutes under load, 33.0 ms at first ({word})"
