"""Measure artifacts, each in a fresh process, so that crashes are values and peak memory is the artifact's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

from autocompress.cost import Artifact, Failure, Measurement
from autocompress.profiling.drift import reference_ms
from autocompress.profiling.timing import Timing
from autocompress.profiling.worker import Request

WORKER = (sys.executable, "-m", "autocompress.profiling.worker")
_KILLED = -9  # Windows has no name for it.
_MEMORY_WORDS = ("MemoryError", "bad_alloc", "bad allocation", "Failed to allocate", "Cannot allocate memory")


class Runner(Protocol):
    """A way to run artifacts on a device."""

    def run(
        self, artifact: Artifact, timing: Timing, *, provenance: Mapping[str, str] | None = None
    ) -> Measurement | Failure:
        """Time ``artifact``.

        Args:
            artifact: What is run.
            timing: How.
            provenance: Text values that are added to the measurement's own, e.g. the date.
        """


@dataclass(frozen=True)
class LocalRunner:
    """Runs artifacts on this machine.

    Attributes:
        device: Name of the profile that this machine is measured as.
        command: The worker; a prefix such as ``("taskset", "-c", "3")`` may be put before ``WORKER``.
    """

    device: str
    command: tuple[str, ...] = WORKER

    def run(
        self, artifact: Artifact, timing: Timing, *, provenance: Mapping[str, str] | None = None
    ) -> Measurement | Failure:
        """See ``Runner.run``. A crash, a hang, or a wrong result is a ``Failure``, whose reason begins with its kind.

        Kinds: ``crash``, ``time-out``, ``out of memory``, ``wrong result``, ``refused``, ``error``.
        """
        answer = ask(Request.of(artifact, timing), timeout_s=timing.limit_s, command=self.command)
        return read_answer(answer, artifact, timing, device=self.device, provenance=provenance)


class Asked(Protocol):
    """What a worker is asked on its standard input."""

    @property
    def threads(self) -> int:
        """Threads of the engine."""

    def to_json(self) -> str:
        """Write what the worker reads."""


def ask(request: Asked, *, timeout_s: float, command: Sequence[str] = WORKER) -> dict[str, Any]:
    """Return what a fresh worker answers, e.g. the fields of a measurement, or ``failure`` with the reason.

    Args:
        request: What is to be measured.
        timeout_s: Seconds after which the worker counts as hung, and is killed.
        command: The worker.
    """
    try:
        done = subprocess.run(
            command,
            input=request.to_json(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=os.environ | _threads(request.threads),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"time-out: no answer within {timeout_s:g} s"}
    except OSError as error:
        return {"failure": f"error: the worker cannot start: {error}"}
    if done.returncode != 0:
        return {"failure": classify(done.returncode, done.stderr)}
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"failure": f"error: the worker answered {done.stdout[:80]!r}"}
    return answer


def read_answer(
    answer: Mapping[str, Any],
    artifact: Artifact,
    timing: Timing,
    *,
    device: str,
    provenance: Mapping[str, str] | None = None,
) -> Measurement | Failure:
    """Return the measurement of ``artifact`` on ``device`` that a worker answered, or its failure."""
    if "failure" in answer:
        return Failure(str(answer["failure"]))
    return Measurement(
        samples_ms=tuple(answer["samples_ms"]),
        peak_memory_bytes=answer["peak_memory_bytes"],
        base_memory_bytes=answer["base_memory_bytes"],
        size_bytes=answer["size_bytes"],
        device=device,
        engine=artifact.engine,
        threads=timing.threads,
        energy_mj=answer.get("energy_mj"),
        provenance={**answer["provenance"], **(provenance or {})},
    )


def _threads(threads: int) -> dict[str, str]:
    # numpy is only the reference kernel here: one thread. The others are read by engines when they start.
    numpy = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    return numpy | dict.fromkeys(("OMP_NUM_THREADS", "TVM_NUM_THREADS"), str(threads))


def classify(status: int, stderr: str) -> str:
    """Say in one line why a worker ended with ``status`` (negative: the signal that ended it)."""
    last = last_words(stderr)
    if any(word in stderr for word in _MEMORY_WORDS):
        return f"out of memory: {last}"
    if status == _KILLED:
        return "out of memory: killed by SIGKILL, as the system does when memory runs out"
    if status < 0:
        return f"crash: {signal.Signals(-status).name}"
    return f"error: exit status {status}: {last}"


def last_words(stderr: str) -> str:
    """Return the last line that a process wrote, or say that there is none."""
    return next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "no message")


def measure_alternating(
    runner: Runner,
    artifacts: Mapping[str, Artifact],
    timing: Timing,
    *,
    rounds: int = 3,
    provenance: Mapping[str, str] | None = None,
) -> dict[str, Measurement | Failure]:
    """Measure artifacts in turn, A B A B, each time in a fresh process, so that drift of the machine hits all alike.

    Returns:
        For each name all its samples in the order taken and the highest peak memory; a name that fails once is a
        failure and is not run again.
    """
    taken: dict[str, list[Measurement]] = {name: [] for name in artifacts}
    failed: dict[str, Failure] = {}
    for _ in range(rounds):
        for name, artifact in artifacts.items():
            if name in failed:
                continue
            result = runner.run(artifact, timing, provenance=provenance)
            if isinstance(result, Failure):
                failed[name] = result
            else:
                taken[name].append(result)
    return {name: failed[name] if name in failed else pool(runs) for name, runs in taken.items()}


def pool(runs: list[Measurement]) -> Measurement:
    """Join measurements of one artifact: samples in order, highest peak with its base, median reference and energy."""
    highest = max(runs, key=lambda run: run.peak_memory_bytes)
    references = [reference_ms(run) for run in runs]
    energies_mj = [run.energy_mj for run in runs if run.energy_mj is not None]
    return replace(
        highest,
        samples_ms=tuple(sample for run in runs for sample in run.samples_ms),
        energy_mj=median(energies_mj) if energies_mj else None,
        provenance={
            **runs[0].provenance,
            "reference_ms": f"{median(references):.6f}",
            "waited_ms": " ".join(run.provenance.get("waited_ms", "") for run in runs),
            "rounds": str(len(runs)),
        },
    )
