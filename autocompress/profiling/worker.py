"""The fresh process that times one artifact: a JSON request on standard input, a JSON answer on standard output.

Run as ``python -m autocompress.profiling.worker``. It imports neither torch nor transformers, so boards can run it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

import numpy as np

from autocompress.cost import Artifact
from autocompress.devices.system import emulator
from autocompress.engines import open_artifact
from autocompress.errors import AutoCompressError
from autocompress.feeds import drawn
from autocompress.profiling.conditions import ProcessorState, read_state
from autocompress.profiling.drift import Reference, waiting_clock
from autocompress.profiling.energy import find_meter, metered_mj
from autocompress.profiling.memory import peak_resident_bytes, resident_bytes
from autocompress.profiling.sustained import sustain
from autocompress.profiling.timing import Times, Timing, WarmUp, time_calls, warm_up

PACKAGES = {"onnxruntime": "onnxruntime", "tvm": "apache-tvm"}
"""Engine name -> the package whose version counts."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        path: File of the artifact.
        engine: Key of ``engines.ENGINES``.
        tokens: Length of the input sequences; of images what these make.
        threads: Threads of the engine.
        vocabulary: Ids, where it reads any, are drawn from 0 to ``vocabulary - 1``.
        warmup: Fewest runs before the first sample.
        repeats: Most samples.
        cap_s: Seconds after which no further sample is taken (infinite as ``null`` in JSON).
        seed: Of the input.
        batch: Sequences of one run.
        sustained_s: Seconds for which it then runs without a pause, 0 for not at all.
    """

    path: str
    engine: str
    tokens: int
    threads: int
    vocabulary: int
    warmup: int
    repeats: int
    cap_s: float | None = None
    seed: int = 0
    batch: int = 1
    sustained_s: float = 0.0

    @classmethod
    def of(cls, artifact: Artifact, timing: Timing) -> Request:
        """Ask for ``artifact`` to be timed so."""
        return cls(
            path=str(artifact.path),
            engine=artifact.engine,
            tokens=artifact.tokens,
            threads=timing.threads,
            vocabulary=timing.vocabulary,
            warmup=timing.warmup,
            repeats=timing.repeats,
            cap_s=None if timing.cap_s == float("inf") else timing.cap_s,
            seed=timing.seed,
            batch=artifact.batch,
            sustained_s=timing.sustained_s,
        )

    def to_json(self) -> str:
        """Write what ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))


def measure(request: Request) -> dict[str, object]:
    """Load and time the artifact; return the fields of the answer.

    Raises:
        ArithmeticError: The logits are not finite.
    """
    start_s, reference = time.time(), Reference()
    reference()
    base_bytes = resident_bytes()
    artifact = Artifact(Path(request.path), request.engine, request.tokens, request.batch)
    call = _prepare(request, artifact)
    warm, times, state = _time(request, call, reference)
    peak_bytes = peak_resident_bytes()
    energy_mj, metered = _metered(call)
    lasting = _sustained(request, call)
    return {
        "samples_ms": times.samples_ms,
        "peak_memory_bytes": peak_bytes,
        "base_memory_bytes": base_bytes,
        "size_bytes": artifact.size_bytes,
        "energy_mj": energy_mj,
        "provenance": {
            **_host(request.engine),
            **state.provenance(),
            **metered,
            **lasting,
            "start_s": f"{start_s:.3f}",
            "reference_ms": f"{reference.median_ms:.6f}",
            "waited_ms": " ".join(f"{wait_ms:.3f}" for wait_ms in times.waited_ms),
            "warmup_runs": str(warm.runs),
            "warmup_stable": "yes" if warm.stable else "no",
        },
    }


def _prepare(request: Request, artifact: Artifact) -> Callable[[], object]:
    """Open the artifact, look at one result, and return a call that runs it."""
    run = open_artifact(artifact, threads=request.threads)
    sizes = {"batch": request.batch, "tokens": request.tokens}
    given = drawn(run.feeds, vocabulary=request.vocabulary, seed=request.seed, **sizes)
    logits = run(given)  # Checks what is given, once.
    if not np.isfinite(logits).all():
        raise ArithmeticError(f"{np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are not finite")
    return lambda: run.run(given)


def _time(request: Request, call: Callable[[], object], reference: Reference) -> tuple[WarmUp, Times, ProcessorState]:
    """Warm up for half of the time at most, take samples in what is left, and look at the processor right after."""
    cap_s, start_s = float("inf") if request.cap_s is None else request.cap_s, time.perf_counter()
    warm = warm_up(call, fewest=request.warmup, cap_s=cap_s / 2)
    left_s = cap_s - (time.perf_counter() - start_s)
    times = time_calls(call, warmup=0, repeats=request.repeats, cap_s=left_s, between=reference, waited=waiting_clock())
    state = read_state()
    reference()
    return warm, times, state


def _metered(call: Callable[[], object]) -> tuple[float | None, dict[str, str]]:
    """Return the energy of a run in millijoules and its source, where the system tells it."""
    meter = find_meter()
    energy_mj = None if meter is None else metered_mj(call, meter)
    return energy_mj, {} if meter is None or energy_mj is None else {"energy_source": meter.source}


def _sustained(request: Request, call: Callable[[], object]) -> dict[str, str]:
    return {"sustained": sustain(call, seconds=request.sustained_s).to_json()} if request.sustained_s else {}


def _host(engine: str) -> dict[str, str]:
    facts = {
        "processor": processor(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    try:
        facts["engine_version"] = version(PACKAGES.get(engine, engine))
    except PackageNotFoundError:
        facts["engine_version"] = "unknown"
    if program := emulator():
        facts["emulated"] = program
    return facts


def processor() -> str:
    """Return the name of the processor or, on boards that only name themselves, of the board."""
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if names:
        return names[0]
    return board.read_text().strip("\0\n ") if board.exists() else platform.processor() or platform.machine()


def answer(request: Request) -> dict[str, object]:
    """Return the fields of a measurement, or ``failure`` with a classified reason."""
    try:
        return measure(request)
    except AutoCompressError as error:
        return {"failure": f"refused: {error}"}
    except MemoryError as error:
        return {"failure": f"out of memory: {error}".rstrip(": ")}
    except ArithmeticError as error:
        return {"failure": f"wrong result: {error}"}


def take_stdout() -> TextIO:
    """Return standard output; what engines print there from native code goes to standard error from now on."""
    mine = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return mine


def main() -> None:
    """Answer the one request on standard input."""
    with take_stdout() as out:
        json.dump(answer(Request.from_json(sys.stdin.read())), out)


if __name__ == "__main__":
    main()
