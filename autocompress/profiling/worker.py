"""The fresh process that times one artifact: a JSON request on standard input, a JSON answer on standard output.

Run as ``python -m autocompress.profiling.worker``. It imports neither torch nor transformers, so boards can run it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

import numpy as np

from autocompress.cost import Artifact
from autocompress.devices.system import emulator
from autocompress.engines import open_artifact
from autocompress.errors import AutoCompressError
from autocompress.profiling.drift import Reference, waiting_clock
from autocompress.profiling.memory import peak_resident_bytes, resident_bytes
from autocompress.profiling.timing import Timing, time_calls

PACKAGES = {"onnxruntime": "onnxruntime", "tvm": "apache-tvm"}
"""Engine name -> the package whose version counts."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        path: File of the artifact.
        engine: Key of ``engines.ENGINES``.
        tokens: Length of the input sequences.
        threads: Threads of the engine.
        vocabulary: Input ids are drawn from 0 to ``vocabulary - 1``.
        warmup: Runs before the first sample.
        repeats: Most samples.
        cap_s: Seconds after which no further sample is taken (infinite as ``null`` in JSON).
        seed: Of the input ids.
        batch: Sequences of one run.
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
    run = open_artifact(artifact, threads=request.threads)
    sizes = (request.batch, request.tokens)
    ids = np.random.default_rng(request.seed).integers(0, request.vocabulary, sizes, dtype=np.int64)
    mask = np.ones_like(ids)
    logits = run(ids, mask)
    if not np.isfinite(logits).all():
        raise ArithmeticError(f"{np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are not finite")
    times = time_calls(
        lambda: run(ids, mask),
        warmup=request.warmup,
        repeats=request.repeats,
        cap_s=float("inf") if request.cap_s is None else request.cap_s,
        between=reference,
        waited=waiting_clock(),
    )
    reference()
    return {
        "samples_ms": times.samples_ms,
        "peak_memory_bytes": peak_resident_bytes(),
        "base_memory_bytes": base_bytes,
        "size_bytes": artifact.size_bytes,
        "provenance": {
            **_host(request.engine),
            "start_s": f"{start_s:.3f}",
            "reference_ms": f"{reference.median_ms:.6f}",
            "waited_ms": " ".join(f"{wait_ms:.3f}" for wait_ms in times.waited_ms),
        },
    }


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
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        facts["governor"] = governor.read_text().strip()
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
