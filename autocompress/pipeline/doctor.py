"""Does everything that a run needs work on this machine; each engine is really run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.graph import random_weights
from autocompress.devices.detect import detect_host
from autocompress.devices.paths import home
from autocompress.engines import open_artifact
from autocompress.feeds import Logits, of_text
from autocompress.pipeline.workspace import FREE_BYTES, PACKAGES
from autocompress.shape import LayerShape, ModelShape

TVM_FFI = "0.1.14.post1"
TINY = ModelShape("bert", 50, 16, 32, 32, (LayerShape(2, 16, 64, 8, 8, 4, 4),), 3)


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, what was found, whether it is well, and what to do if not."""

    what: str
    found: str
    ok: bool
    remedy: str = ""


def examine() -> list[Finding]:
    """Check packages, processor, engines, disk and pip."""
    checks: list[Callable[[], Finding]] = [*(_package(name) for name in PACKAGES), _ffi, _processor]
    checks += [*(_engine(name) for name in BUILDERS), _disk, _pip]
    return [check() for check in checks]


def _package(name: str) -> Callable[[], Finding]:
    def check() -> Finding:
        return _attempt(name, lambda: version(name), f"pip install {name}")

    return check


def _attempt(what: str, look: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(what, look(), ok=True, remedy=remedy)
    except Exception as error:
        # Whatever fails, in whatever way, is the finding.
        message = (str(error).splitlines() or [""])[0]
        return Finding(what, f"{type(error).__name__}: {message}", ok=False, remedy=remedy)


def _ffi() -> Finding:
    found = version("apache-tvm-ffi")
    return Finding("apache-tvm-ffi", found, found == TVM_FFI, f"pip install apache-tvm-ffi=={TVM_FFI}")


def _processor() -> Finding:
    profile = detect_host(measure_bandwidth=False)
    found = f"{profile.cpu}, {profile.core_count} cores, {profile.vector_bits}-bit vectors"
    return Finding("processor", found, ok=True)


def _engine(name: str) -> Callable[[], Finding]:
    reinstall = f"pip install --force-reinstall {name}"
    remedy = "apt install g++ (the linker of compiled models)" if name == "tvm" else reinstall

    def look() -> str:
        expected, found = _run("onnxruntime"), _run(name)
        difference = float(np.abs(found - expected).max() / np.ptp(expected))
        if not difference < 0.02:
            raise ArithmeticError(f"differs from onnxruntime by {difference:.2g} of the logits' spread")
        return f"computes an int8 and int4 model within {difference:.1g}"

    return lambda: _attempt(f"engine {name}", look, remedy)


def _run(engine: str) -> Logits:
    ids = np.array([[3, 1, 4, 1, 5]])
    with tempfile.TemporaryDirectory() as folder:
        artifact = build(TINY, random_weights(TINY), Path(folder, "model"), engine=engine, tokens=5)
        return open_artifact(artifact, threads=1)(of_text(ids))


def _disk() -> Finding:
    place = next(path for path in (home(), *home().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Finding("disk", f"{free / 2**30:.1f} GiB free at {place}", free > 4 * FREE_BYTES, "Free some space.")


def _pip() -> Finding:
    def look() -> str:
        command = [sys.executable, "-m", "pip", "--version"]
        return " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[:2])

    return _attempt("pip (fetches wheel: sources)", look, "python -m ensurepip")
