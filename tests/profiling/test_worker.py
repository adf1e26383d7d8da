from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from autocompress.cost import Artifact
from autocompress.profiling import worker
from autocompress.profiling.worker import Request, answer, measure, processor


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


def test_the_input_is_one_seeded_sequence_of_ids_below_the_vocabulary(tiny, monkeypatch):
    seen = []

    def open_spy(artifact, *, threads):
        def run(ids, mask):
            seen.append(ids)
            assert (mask == 1).all()
            assert mask.shape == ids.shape
            return np.zeros((1, 3), np.float32)

        return run

    monkeypatch.setattr(worker, "open_artifact", open_spy)
    for seed in (0, 0, 1):
        measure(request(tiny, seed=seed, vocabulary=7))
    first, same, other = seen[0], seen[len(seen) // 3], seen[-1]
    assert first.shape == (1, 8)
    assert 0 <= first.min() <= first.max() < 7
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
