from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from autocompress.cost import Failure, Measurement
from autocompress.profiling.drift import (
    Reference,
    drifted,
    reference_ms,
    remeasure_drifted,
    slow_episodes,
    waited_share,
    waiting_clock,
    without_waiting,
)


def measured(reference: float = 1.0, *, samples=(4.0, 6.0), waits=(0.0, 0.0)) -> Measurement:
    provenance = {"reference_ms": str(reference), "waited_ms": " ".join(map(str, waits))}
    return Measurement(tuple(samples), 2, 1, 1, "host", "onnxruntime", 1, provenance)


def test_a_measurement_beside_a_slow_reference_kernel_has_drifted():
    results = {"a": measured(1.0), "b": measured(1.02), "c": measured(1.2), "d": measured(0.9), "e": measured(1.0)}
    # The median is 1.0, and 15 % more than that is allowed.
    assert drifted(results) == ("c",)
    assert drifted(results, tolerance=0.25) == ()


def test_a_measurement_that_waited_for_a_processor_has_drifted():
    results = {"calm": measured(waits=(0.0, 0.2)), "busy": measured(waits=(0.0, 0.6))}
    assert waited_share(results["busy"]) == pytest.approx(0.06)
    assert drifted(results) == ("busy",)


def test_the_most_disturbed_comes_first_and_failures_do_not_drift():
    calm = {name: measured() for name in "abc"}
    results = {"slow": measured(1.5), "slower": measured(2.0), "failed": Failure("crash: SIGSEGV"), **calm}
    assert drifted(results) == ("slower", "slow")
    assert drifted({"failed": Failure("crash: SIGSEGV")}) == ()


def test_the_less_disturbed_of_two_measurements_is_kept():
    again = {"better": measured(1.0, samples=(3.0,)), "worse": measured(3.0), "fails": Failure("time-out: 1 s")}
    results = {"ok": measured(), "ok2": measured(), "ok3": measured(), "ok4": measured()}
    results |= {"better": measured(1.5), "worse": measured(2.0), "fails": measured(2.5)}
    kept = remeasure_drifted(results, again.__getitem__, at_most=9)
    assert kept == {**results, "better": again["better"]}


def test_no_more_is_measured_again_than_allowed():
    asked: list[str] = []

    def measure(name: str) -> Measurement:
        asked.append(name)
        return measured()

    calm = {str(index): measured() for index in range(5)}
    remeasure_drifted({"a": measured(2.0), "b": measured(3.0), **calm}, measure, at_most=1)
    assert asked == ["b"]


def test_waiting_is_taken_off_each_sample_and_said_so():
    quiet = without_waiting(measured(samples=(4.0, 6.0), waits=(1.0, 0.0)))
    assert quiet.samples_ms == (3.0, 6.0)
    assert float(quiet.provenance["waiting_taken_off"]) == pytest.approx(0.1)
    assert without_waiting(quiet) == quiet


def test_a_measurement_without_a_reference_is_not_a_number():
    bare = Measurement((1.0,), 2, 1, 1, "host", "onnxruntime", 1)
    assert reference_ms(bare) != reference_ms(bare)


def test_the_reference_kernel_keeps_the_times_of_every_call():
    reference = Reference()
    reference()
    first = len(reference.times_ms)
    reference()
    assert len(reference.times_ms) == 2 * first
    assert min(reference.times_ms) <= reference.median_ms <= max(reference.times_ms)


def test_the_waiting_clock_never_runs_backwards_while_threads_compete():
    waited = waiting_clock()
    stop = threading.Event()
    rivals = [threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]) for _ in range(3)]
    for rival in rivals:
        rival.start()
    readings = [waited() for _ in range(1000)]
    stop.set()
    for rival in rivals:
        rival.join()
    assert readings == sorted(readings)
    assert readings[0] >= 0.0


def test_a_stretch_that_is_slow_by_less_than_a_single_one_may_be_has_drifted():
    names = "abcdefghijkl"
    results = {name: measured(1.1 if name in "efg" else 1.0) for name in names}
    results["failed"] = Failure("crash: SIGSEGV")
    assert set(drifted(results)) == set("efg")
    (episode,) = slow_episodes(results)
    assert (episode.samples, episode.cause) == (range(4, 7), "unknown")
    assert episode.slowdown == pytest.approx(0.1)


def test_what_a_worker_knew_of_the_device_tells_the_cause():
    def throttled(name: str) -> Measurement:
        slow = name in "efgh"
        result = measured(4 / 3 if slow else 1.0)
        known = {"start_s": str(100.0 + "abcdefghijkl".index(name)), "frequency_ghz": "1.8" if slow else "2.4"}
        return replace(result, provenance={**result.provenance, **known})

    (episode,) = slow_episodes({name: throttled(name) for name in "abcdefghijkl"})
    assert (episode.cause, episode.start_s) == ("throttling", 104.0)
    assert (episode.usual.frequency_ghz, episode.during.frequency_ghz) == (2.4, 1.8)


def test_a_measurement_that_knows_nothing_of_the_device_has_not_drifted():
    bare = Measurement((1.0,), 2, 1, 1, "host", "onnxruntime", 1)
    assert drifted({"a": bare, "b": bare}) == ()
