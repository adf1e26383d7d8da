from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from autocompress.cost import Artifact
from autocompress.engines import Opened
from autocompress.feeds import TEXT, feeds_of
from autocompress.profiling import energy, worker
from autocompress.profiling.conditions import ProcessorState
from autocompress.profiling.timing import Timing
from autocompress.profiling.worker import Request, answer, measure, processor
from autocompress.shape import Pixels


def request(artifact: Artifact, **changes: object) -> Request:
    plain = Request(str(artifact.path), artifact.engine, artifact.tokens, 1, vocabulary=50, warmup=1, repeats=4)
    return replace(plain, **changes)


def test_a_request_survives_its_json(tiny):
    for cap_s in (None, 0.5):
        asked = request(tiny, cap_s=cap_s)
        assert Request.from_json(asked.to_json()) == asked


def test_an_answer_holds_raw_samples_memory_size_and_where_they_come_from(tiny):
    fields = measure(request(tiny))
    assert len(fields["samples_ms"]) == 4
    assert all(sample > 0 for sample in fields["samples_ms"])
    assert 0 < fields["base_memory_bytes"] <= fields["peak_memory_bytes"]
    assert fields["size_bytes"] == tiny.path.stat().st_size
    assert len(fields["provenance"]["waited_ms"].split()) == 4
    assert {"processor", "engine_version", "python", "reference_ms"} <= set(fields["provenance"])


def test_an_answer_says_how_often_the_artifact_was_warmed_up(tiny):
    facts = measure(request(tiny, warmup=25))["provenance"]
    assert int(facts["warmup_runs"]) >= 25
    assert facts["warmup_stable"] == "yes"
    hurried = measure(request(tiny, warmup=10**9, cap_s=0.02))
    assert hurried["provenance"]["warmup_stable"] == "no"


def test_the_processor_is_looked_at_when_the_samples_are_taken(tiny, monkeypatch):
    monkeypatch.setattr(worker, "read_state", lambda: ProcessorState(1.8, 61.5, "ondemand", throttled=False))
    facts = measure(request(tiny))["provenance"]
    expected = {"frequency_ghz": "1.800", "temperature_c": "61.5", "governor": "ondemand", "throttled": "no"}
    assert expected.items() <= facts.items()


def test_what_the_system_does_not_tell_is_absent(tiny, monkeypatch):
    monkeypatch.setattr(worker, "read_state", ProcessorState)
    monkeypatch.setattr(worker, "find_meter", lambda: None)
    fields = measure(request(tiny))
    assert fields["energy_mj"] is None
    unknown = {"frequency_ghz", "temperature_c", "governor", "throttled", "energy_source", "sustained"}
    assert not unknown & set(fields["provenance"])


def test_energy_comes_with_its_source(tiny, monkeypatch):
    class Meter:
        source = "rapl package-0"

        def __init__(self) -> None:
            self.seconds = 0.0

        def start(self) -> None:
            pass

        def stop(self, seconds: float) -> float:
            self.seconds = seconds
            return 8.0 * seconds

    runs, meter = [], Meter()
    real = worker.open_artifact

    def counting(artifact, *, threads):
        run = real(artifact, threads=threads)
        return replace(run, run=lambda given: runs.append(1) or run.run(given))

    def metered_mj(call, meter):
        before = len(runs)
        energy_mj = energy.metered_mj(call, meter, seconds=0.05)
        assert energy_mj == pytest.approx(1e3 * 8.0 * meter.seconds / (len(runs) - before))
        return energy_mj

    monkeypatch.setattr(worker, "open_artifact", counting)
    monkeypatch.setattr(worker, "find_meter", lambda: meter)
    monkeypatch.setattr(worker, "metered_mj", metered_mj)
    fields = measure(request(tiny))
    assert fields["energy_mj"] > 0
    assert fields["provenance"]["energy_source"] == "rapl package-0"


def test_a_request_for_lasting_load_is_that_of_its_timing(tiny):
    timing = Timing(1, 50, sustained_s=90.0)
    assert Request.from_json(Request.of(tiny, timing).to_json()).sustained_s == 90.0


def test_the_input_is_one_seeded_sequence_of_ids_below_the_vocabulary(tiny, monkeypatch):
    seen = []

    def open_spy(artifact, *, threads):
        def run(given):
            seen.append(given["input_ids"])
            assert np.array_equal(given["attention_mask"], np.ones_like(seen[-1]))
            return np.zeros((1, 3), np.float32)

        return Opened(TEXT, run)

    monkeypatch.setattr(worker, "open_artifact", open_spy)
    for seed in (0, 0, 1):
        measure(request(tiny, seed=seed, vocabulary=7))
    first, same, other = seen[0], seen[len(seen) // 3], seen[-1]
    assert first.shape == (1, 8)
    assert 0 <= first.min() <= first.max() < 7
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_the_input_of_what_reads_pixels_is_a_seeded_image_of_its_dimensions(tiny, monkeypatch):
    seen = []

    def open_spy(artifact, *, threads):
        run = lambda given: seen.append(given["pixel_values"]) or np.zeros((2, 3), np.float32)  # noqa: E731
        return Opened(feeds_of(Pixels(3, 8, 6, patch=2)), run)

    monkeypatch.setattr(worker, "open_artifact", open_spy)
    for seed in (0, 0, 1):
        measure(request(tiny, seed=seed, vocabulary=0, batch=2))
    first, same, other = seen[0], seen[len(seen) // 3], seen[-1]
    assert (first.shape, first.dtype) == ((2, 3, 8, 6), np.float32)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_logits_that_are_not_finite_are_a_wrong_result(broken):
    assert answer(request(broken)) == {"failure": "wrong result: 3 of 3 logits are not finite"}


def test_an_unknown_engine_is_refused(tiny):
    failure = answer(request(tiny, engine="abacus"))["failure"]
    assert failure.startswith("refused: ")
    assert "abacus" in failure


def test_running_out_of_memory_is_told_apart(tiny, monkeypatch):
    def full(artifact, *, threads):
        raise MemoryError

    monkeypatch.setattr(worker, "open_artifact", full)
    assert answer(request(tiny)) == {"failure": "out of memory"}


def test_the_processor_has_a_name():
    assert processor()


@pytest.mark.parametrize("package", ["torch", "transformers", "optuna", "scipy", "tvm", "onnxruntime"])
def test_starting_the_worker_imports_no_heavy_package(package):
    code = f"import sys, autocompress.profiling.worker; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
