"""The fresh process that times the kernels of a library: a JSON request on standard input, a JSON answer on the output.

Run as ``python -m autocompress.boards.kernel_worker``. Of TVM it needs the runtime only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from autocompress.boards.orphans import die_with
from autocompress.compiler.kernel_sampler import CompiledKernel, KernelSampler
from autocompress.engines import tvm_runtime
from autocompress.profiling.runner import classify
from autocompress.profiling.worker import take_stdout


@dataclass(frozen=True)
class KernelRequest:
    """What is to be timed.

    Attributes:
        path: File of the library.
        kernels: Name -> kernel in it.
        order: Names, in the order in which they run; see ``tuning.Sampler``.
    """

    threads: ClassVar[int] = 1
    path: str
    kernels: Mapping[str, CompiledKernel]
    order: Sequence[str]

    def to_json(self) -> str:
        """Write what ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> KernelRequest:
        """Read what ``to_json`` wrote."""
        fields = json.loads(text)
        kernels = {name: CompiledKernel(**kernel) for name, kernel in fields.pop("kernels").items()}
        return cls(kernels=kernels, **fields)


def answer(request: KernelRequest) -> dict[str, Any]:
    """Return ``times_us``, name -> samples of the kernels that run here, and ``failures``, name -> reason."""
    runtime = tvm_runtime(request.threads)
    sample = KernelSampler(runtime, runtime.load_module(request.path), request.kernels)
    tried = {name: _crash(sample, name) for name in dict.fromkeys(request.order)}
    failures = {name: reason for name, reason in tried.items() if reason}
    return {"times_us": sample([name for name in request.order if name not in failures]), "failures": failures}


def _crash(sample: KernelSampler, name: str) -> str:
    """Run a kernel in a process of its own; return how that ended where it ended badly, else ""."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with(parent)
            sample.run_s(name, runs=1)
            os._exit(0)
        finally:
            os._exit(1)  # It is no second worker, whatever happens.
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return classify(status, "") if status else ""


def main() -> None:
    """Answer the one request on standard input."""
    with take_stdout() as out:
        json.dump(answer(KernelRequest.from_json(sys.stdin.read())), out)


if __name__ == "__main__":
    main()
