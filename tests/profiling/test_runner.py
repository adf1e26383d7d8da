from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field, replace

import pytest

from autocompress.cost import Artifact, Failure, Measurement
from autocompress.profiling.drift import reference_ms, waited_ms
from autocompress.profiling.runner import WORKER, LocalRunner, classify, measure_alternating, pool, read_answer
from autocompress.profiling.timing import Timing


def python(code: str) -> tuple[str, ...]:
    """A worker that does something else."""
    return (sys.executable, "-c", code)


def run(artifact: Artifact, **changes: object) -> Measurement | Failure:
    timing = Timing(1, 50, warmup=1, repeats=6, timeout_s=changes.pop("timeout_s", 120))
    return LocalRunner("my-board", **changes).run(artifact, timing, provenance={"date": "2025-01-31"})


def test_an_artifact_is_measured_in_a_process_of_its_own(tiny):
    result = run(tiny)
    assert isinstance(result, Measurement)
    assert (result.device, result.engine, result.threads) == ("my-board", "onnxruntime", 1)
    assert len(result.samples_ms) == 6
    assert result.base_memory_bytes < result.peak_memory_bytes
    assert result.size_bytes == tiny.size_bytes
    assert result.provenance["date"] == "2025-01-31"
    assert reference_ms(result) > 0


def test_what_an_engine_prints_does_not_spoil_the_answer(tiny):
    code = (
        "import os; from autocompress.profiling import worker; real = worker.open_artifact\n"
        "def loud(*args, **named):\n    os.write(1, b'tuning...\\n'); print('hello'); return real(*args, **named)\n"
        "worker.open_artifact = loud; worker.main()"
    )
    assert isinstance(run(tiny, command=python(code)), Measurement)


def test_a_native_crash_is_a_failure_that_names_the_signal(tiny):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert run(tiny, command=python(code)) == Failure("crash: SIGSEGV")


def test_lasting_load_is_no_hang(tiny):
    code = 'import time; time.sleep(0.6); print(\'{"failure": "over"}\')'
    timing = Timing(1, 50, timeout_s=0.3, sustained_s=30)
    assert LocalRunner("host", command=python(code)).run(tiny, timing) == Failure("over")


def test_energy_is_that_of_the_answer_and_absent_with_workers_that_tell_none(tiny):
    answer = {"samples_ms": [1.0], "peak_memory_bytes": 2, "base_memory_bytes": 1, "size_bytes": 1, "provenance": {}}
    assert read_answer(answer, tiny, Timing(1, 50), device="host").energy_mj is None
    assert read_answer(answer | {"energy_mj": 2.5}, tiny, Timing(1, 50), device="host").energy_mj == 2.5


def test_a_hang_is_a_failure_that_names_the_limit(tiny):
    result = run(tiny, command=python("import time; time.sleep(60)"), timeout_s=0.3)
    assert result == Failure("time-out: no answer within 0.3 s")


def test_an_unreadable_artifact_is_a_failure_with_the_engines_last_words(tiny, tmp_path):
    result = run(replace(tiny, path=tmp_path / "absent.onnx"))
    assert isinstance(result, Failure)
    assert result.reason.startswith("error: exit status 1: ")
    assert "absent.onnx" in result.reason


def test_a_wrong_result_is_a_failure(broken):
    assert run(broken) == Failure("wrong result: 3 of 3 logits are not finite")


def test_a_worker_that_does_not_answer_in_json_is_a_failure(tiny):
    result = run(tiny, command=python("print('ready')"))
    assert result == Failure("error: the worker answered 'ready\\n'")


def test_a_worker_that_cannot_start_is_a_failure(tiny):
    result = run(tiny, command=("no-such-program",))
    assert isinstance(result, Failure)
    assert result.reason.startswith("error: the worker cannot start: ")


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [
        (1, "Traceback\nMemoryError: 9 GiB\n\n", "out of memory: MemoryError: 9 GiB"),
        (-signal.SIGABRT, "terminate called\n what(): std::bad_alloc\n", "out of memory: what(): std::bad_alloc"),
        (-9, "", "out of memory: killed by SIGKILL, as the system does when memory runs out"),
        (-signal.SIGILL, "some warning\n", "crash: SIGILL"),
        (3, "", "error: exit status 3: no message"),
    ],
)
def test_the_end_of_a_worker_is_put_into_words(status, stderr, reason):
    assert classify(status, stderr) == reason


def test_the_worker_gets_the_threads_and_one_thread_for_the_reference(tiny):
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TVM_NUM_THREADS")
    code = f"import json, os; print(json.dumps({{'failure': ' '.join(os.environ[name] for name in {names})}}))"
    result = LocalRunner("host", command=python(code)).run(tiny, Timing(3, 50))
    assert result == Failure("1 3 3")


@dataclass
class Scripted:
    """A runner whose answers are known."""

    failing: str = ""
    asked: list[str] = field(default_factory=list)

    def run(self, artifact, timing, *, provenance=None):
        self.asked.append(artifact.path.name)
        if artifact.path.name == self.failing:
            return Failure("crash: SIGSEGV")
        turn = float(len(self.asked))
        facts = {"reference_ms": str(turn), "waited_ms": "0.5", **(provenance or {})}
        return Measurement((turn,), 1000 + int(turn), 10, 5, "host", artifact.engine, timing.threads, facts)


def artifacts(tiny: Artifact) -> dict[str, Artifact]:
    return {name: replace(tiny, path=tiny.path.with_name(name)) for name in ("teacher", "student")}


def test_artifacts_take_turns_and_their_samples_are_pooled_in_order(tiny):
    runner = Scripted()
    results = measure_alternating(runner, artifacts(tiny), Timing(2, 50), rounds=3)
    assert runner.asked == ["teacher", "student"] * 3
    assert results["teacher"].samples_ms == (1.0, 3.0, 5.0)
    assert results["student"].samples_ms == (2.0, 4.0, 6.0)
    assert results["student"].peak_memory_bytes == 1006
    assert reference_ms(results["student"]) == 4.0
    assert waited_ms(results["student"]) == (0.5, 0.5, 0.5)
    assert results["student"].provenance["rounds"] == "3"


def test_pooled_energy_is_the_median_of_what_was_metered():
    runs = [Measurement((1.0,), 2, 1, 1, "host", "tvm", 1, {}, energy) for energy in (5.0, None, 3.0, 9.0)]
    assert pool(runs).energy_mj == 5.0
    assert pool([runs[1]]).energy_mj is None


def test_an_artifact_that_fails_once_is_a_failure_and_is_not_run_again(tiny):
    runner = Scripted(failing="student")
    results = measure_alternating(runner, artifacts(tiny), Timing(2, 50), rounds=3)
    assert runner.asked == ["teacher", "student", "teacher", "teacher"]
    assert results["student"] == Failure("crash: SIGSEGV")
    assert len(results["teacher"].samples_ms) == 3


def test_alternating_works_with_real_processes(tiny):
    runner = LocalRunner("host", command=WORKER)
    results = measure_alternating(runner, {"a": tiny, "b": tiny}, Timing(1, 50, repeats=5), rounds=1)
    assert [len(result.samples_ms) for result in results.values()] == [5, 5]
