"""Time the kernels of an open library on the processor that this process runs on. Needs TVM's runtime only."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compiler.graph import Array
from autocompress.engines import aligned_zeros

SAMPLE_S = 0.002
"""What one sample is to take about."""
WAITED = 0.05
"""Share of a sample's time for which the thread may not have run; else it is taken again."""
TRIES = 4
_BFLOAT16 = (0x3F00, 0x4000)
"""The bits of bfloat16 numbers from 0.5 up to 2."""
_CPU = (1, 0)
"""TVM's numbers of the first CPU device."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel in a library, and what it is called with.

    Attributes:
        symbol: Its name in the library.
        arguments: Dimensions and type of each.
    """

    symbol: str
    arguments: Sequence[tuple[Sequence[int], str]]


class KernelSampler:
    """Satisfies ``tuning.Sampler``, on one thread.

    Args:
        runtime: ``tvm_ffi`` with TVM's runtime in it.
        library: The module that holds the kernels.
        kernels: Name -> kernel.
    """

    def __init__(self, runtime: Any, library: Any, kernels: Mapping[str, CompiledKernel]) -> None:
        self.runtime, self.library, self.kernels = runtime, library, kernels
        self.evaluator = runtime.get_global_func("runtime.RPCTimeEvaluator")
        self.arguments = {
            name: [runtime.from_dlpack(some_values(*argument)) for argument in kernel.arguments]
            for name, kernel in kernels.items()
        }
        self.runs: dict[str, int] = {}

    def __call__(self, order: Sequence[str]) -> dict[str, list[float]]:
        """See ``Sampler``; what waited for a processor is taken again, a few times."""
        times_us: dict[str, list[float]] = {name: [] for name in order}
        with one_thread(self.runtime):
            for name in order:
                if name not in self.runs:
                    self.runs[name] = max(1, round(SAMPLE_S / self.run_s(name, runs=2)))
                times_us[name].append(1e6 * self._undisturbed_s(name))
        return times_us

    def run_s(self, name: str, *, runs: int) -> float:
        """Return how long one of so many runs takes, in seconds, after one that does not count."""
        symbol = self.kernels[name].symbol
        evaluate = self.evaluator(self.library, symbol, *_CPU, runs, 1, 0, 1, 0, 1, 0, "")
        (mean_s,) = struct.unpack("@d", evaluate(*self.arguments[name]))
        return float(mean_s)

    def _undisturbed_s(self, name: str) -> float:
        taken = []
        for _ in range(TRIES):
            start_s, ran_s = time.perf_counter(), time.thread_time()
            taken.append(self.run_s(name, runs=self.runs[name]))
            if time.thread_time() - ran_s >= (1 - WAITED) * (time.perf_counter() - start_s):
                break
        return min(taken)


class one_thread:  # noqa: N801 - used like a function
    """A context in which the kernels of a TVM runtime run on the calling thread alone."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def __enter__(self) -> None:
        self.count = self._count()
        self._use(1)

    def __exit__(self, *_: object) -> None:
        self._use(self.count)

    def _count(self) -> int:
        return int(self.runtime.get_global_func("runtime.NumThreads")())

    def _use(self, count: int) -> None:
        if self._count() != count:
            self.runtime.get_global_func("runtime.config_threadpool")(1, count)


def some_values(dimensions: Sequence[int], dtype: str) -> Array:
    """Return values of ordinary size of any type, at an address that TVM accepts.

    There are no infinities and no denormal numbers, which would change the speed.
    """
    rng, values = np.random.default_rng(0), aligned_zeros(dimensions, dtype)
    if dtype.startswith("float"):
        values[...] = rng.uniform(0.5, 1.5, dimensions)
    else:
        values[...] = rng.integers(*(_BFLOAT16 if dtype == "uint16" else (0, 100)), dimensions)
    return values
