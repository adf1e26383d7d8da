"""The benchmarks of repeatability and of foreign records: what they compute from what was measured."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import pytest

from autocompress.cost import Failure, Measurement
from autocompress.profiling.episodes import Conditions, Observation
from benchmarks import foreign_records, injection
from benchmarks.injection import LOADS, ON, WAYS, Injected, Neighbour, judge, schedule
from benchmarks.repeatability import GOAL, compare, differences, kept, left_out, medians, steady_blocks

ALWAYS, HALF = LOADS


def run_of(waits: list[float]) -> tuple[Observation, ...]:
    return tuple(
        Observation(float(second), 1.0, expected_ms=1.0, reference_ms=1.0, conditions=Conditions(waited_share=wait))
        for second, wait in enumerate(waits)
    )


def test_injected_episodes_are_stretches_of_one_load():
    loads = (None, ALWAYS, ALWAYS, None, HALF)
    assert list(Injected(run_of([0.0] * 5), loads).episodes()) == [(ALWAYS, range(1, 3)), (HALF, range(4, 5))]


def test_an_episode_is_found_where_half_of_it_is_marked():
    waits = [0.0] * 8 + [0.5, 0.5, 0.0, 0.0] + [0.0, 0.3] + [0.5, 0.0, 0.0, 0.0]
    injected = Injected(run_of(waits), (None,) * 8 + (ALWAYS,) * 4 + (None,) * 2 + (HALF,) * 4)
    found = judge(injected, WAYS["reference and waiting"])
    assert (found[f"found, {ALWAYS}"], found[f"found, {HALF}"], found["found"]) == (1.0, 0.0, 0.5)
    # One of ten samples outside was marked, and it did wait.
    assert (found["clean"], found["false"], found["calm"], found["false of calm"]) == (10, 0.1, 9, 0.0)


def test_what_is_not_shown_to_the_finder_cannot_be_found():
    injected = Injected(run_of([0.0] * 8 + [0.5] * 4), (None,) * 8 + (ALWAYS,) * 4)
    assert judge(injected, WAYS["reference"])["found"] == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="stops and continues processes")
def test_a_neighbour_runs_only_while_it_is_on():
    def used_s(process: int) -> float:
        after_name = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
        return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")

    with Neighbour(1.0, 0.0) as neighbour:
        process = neighbour._process.pid
        before = used_s(process)
        sleep(0.2)
        assert used_s(process) == before
        neighbour.switch(on=True)
        end_s = perf_counter() + 20
        while used_s(process) == before and perf_counter() < end_s:
            sleep(0.05)
        assert used_s(process) > before
    assert neighbour._process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="pins processes to a core")
def test_an_injection_knows_what_it_did_ends_calm_and_leaves_the_cores_as_they_were(monkeypatch):
    monkeypatch.setattr(injection, "SAMPLE_S", 0.001)
    cores = os.sched_getaffinity(0)
    injected = injection.inject({"a": lambda: sum(range(100)), "b": lambda: sum(range(200))}, episodes=3)
    assert os.sched_getaffinity(0) == cores
    assert injected.loads == schedule(3, 0)
    assert len(injected.run) == len(injected.loads)
    assert injected.loads[0] is injected.loads[-1] is None
    lengths = [len(samples) for _, samples in injected.episodes()]
    assert len(lengths) == 3 and all(ON[0] <= length <= ON[1] for length in lengths)
    starts_s = [each.start_s for each in injected.run]
    assert starts_s == sorted(starts_s)


def measured(*samples_ms: float, reference: float = 1.0, waits: str = "") -> Measurement:
    provenance = {"reference_ms": str(reference), "waited_ms": waits}
    return Measurement(samples_ms, 2, 1, 1, "host", "onnxruntime", 1, provenance)


def test_medians_leave_out_what_drifted_and_take_waiting_off():
    results = {f"a / {number}": measured(2.0 + 0.01 * number) for number in range(5)}
    results |= {"a / 5": measured(9.0, reference=3.0), "a / 6": measured(2.06, 2.06, waits="0.02 0.02")}
    out, _ = left_out(results, {})
    assert out == {"a / 5"}
    assert medians(results, out) == {"a": pytest.approx(2.025)}  # Of 2.00 to 2.04, and 2.06 less 0.02.
    assert medians(results) == {"a": pytest.approx(2.03)}


def test_a_block_that_always_drifted_keeps_its_samples():
    results = {"a / 0": measured(2.0), "a / 1": measured(2.0), "b / 0": measured(5.0, reference=3.0)}
    out, _ = left_out(results, {})
    assert medians(results, out) == {"a": 2.0, "b": 5.0}
    assert steady_blocks(results, out) == {"a"}


def test_profiles_in_which_a_block_was_never_steady_are_not_said_to_agree():
    steady = {"a / 0": measured(2.0), "a / 1": measured(2.0), "b / 0": measured(5.0)}
    busy = {**steady, "b / 0": measured(5.0, reference=3.0)}
    assert compare(steady, steady)["agree"] is True
    slower = {name: measured(*each.samples_ms, reference=1.1) for name, each in steady.items()}
    assert compare(steady, slower)["agree"] is None
    assert left_out(steady, slower) == (set(), set(slower))
    assert compare(steady, busy)["agree"] is compare(busy, steady)["agree"] is None


def test_a_block_that_failed_stops_the_benchmark():
    with pytest.raises(RuntimeError, match="a / 0: crash"):
        medians({"a / 0": Failure("crash: SIGSEGV")})


def test_agreement_is_the_median_over_blocks_of_how_far_they_differ(capsys):
    first = {"a / 0": measured(1.0), "b / 0": measured(2.0), "c / 0": measured(4.0)}
    second = {"a / 0": measured(1.1), "b / 0": measured(1.96), "c / 0": measured(4.04)}
    assert differences({"a": 1.0}, {"a": 1.1}) == {"a": pytest.approx(0.1)}
    figures = compare(first, second)
    assert (figures["difference"], figures["worst_difference"]) == (0.02, 0.1)  # Of 10, 2 and 1 %.
    assert figures["agree"] is (GOAL >= 0.02)
    assert "+10.0%" in capsys.readouterr().out


def test_foreign_records_end_with_their_episodes_as_json(tmp_path, capsys, monkeypatch):
    path = tmp_path / "records.csv"
    rows = [(512 * (1 + position % 4), 1 + position // 4 % 6) for position in range(240)]
    times = [
        (100 + 0.1 * width * depth) * (1.4 if position < 30 else 1.0) for position, (width, depth) in enumerate(rows)
    ]
    lines = [f"{width},{depth},{time}" for (width, depth), time in zip(rows, times, strict=True)]
    path.write_text("\n".join(["width,depth,latency_mean", *lines]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["foreign_records", str(path)])
    foreign_records.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    (episode,) = line["figures"]["episodes"]
    assert (episode["from"], episode["to"], line["marked"]) == (0, 29, 30)
    assert episode["slowdown"] == pytest.approx(0.4, abs=0.03)


def test_an_absent_file_of_foreign_records_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["foreign_records", str(tmp_path / "absent.csv")])
    with pytest.raises(SystemExit) as stop:
        foreign_records.main()
    assert stop.value.code == 2
    assert "absent.csv cannot be read" in capsys.readouterr().err


def test_the_finder_is_shown_less_in_each_other_way():
    (sample,) = run_of([0.5])
    assert WAYS["reference"](sample) == replace(sample, conditions=Conditions())
    assert WAYS["latency"](sample).reference_ms is None


def test_the_first_profile_of_an_earlier_run_is_read_back_with_its_age(tmp_path):
    first = {
        f"block / {number}": Measurement((1.0, 2.0), 100, 10, 50, "host", "onnxruntime", 1, {"start_s": f"{start_s}"})
        for number, start_s in enumerate((1300.0, 1000.0))
    }
    plain = {name: measurement.to_dict() for name, measurement in first.items()}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"details": {"profiles": [plain, {}]}}))
    assert kept(path, clock=lambda: 4600.0) == (first, 60.0)
