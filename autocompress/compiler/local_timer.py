"""Time kernels on this machine, on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm

from autocompress.compiler.graph import Array
from autocompress.compiler.program import Kernel
from autocompress.compiler.relax_graph import kernel_options, write_kernel
from autocompress.compiler.target import Target
from autocompress.compiler.tuning import Sampler

SAMPLE_S = 0.002
"""What one sample is to take about."""
WAITED = 0.05
"""Share of a sample's time for which the thread may not have run; else it is taken again."""
TRIES = 4


_BFLOAT16 = (0x3F00, 0x4000)
"""The bits of bfloat16 numbers from 0.5 up to 2."""


class LocalTimer:
    """Satisfies ``tuning.Timer`` for a target that this machine can run."""

    def __init__(self, target: Target) -> None:
        self.target = target.llvm()

    def __call__(self, kernels: Mapping[str, Kernel]) -> Sampler:
        """See ``tuning.Timer``."""
        symbols = {name: f"kernel_{index}" for index, name in enumerate(kernels)}
        written = {symbols[name]: write_kernel(kernel, symbols[name]) for name, kernel in kernels.items()}
        return LocalSampler(written, symbols, self.target)

    def time_us(self, function: Any) -> float:
        """Return the time of a function named ``kernel_0``, in microseconds."""
        sample = LocalSampler({"kernel_0": function}, {"": "kernel_0"}, self.target)
        return min(sample("") for _ in range(TRIES))


class LocalSampler:
    """Satisfies ``tuning.Sampler``."""

    def __init__(self, written: Mapping[str, Any], symbols: Mapping[str, str], target: Any) -> None:
        with kernel_options():
            self.library = tvm.compile(tvm.IRModule(dict(written)), target=target).mod
        self.symbols = symbols
        self.arguments = {
            symbol: [_tensor(buffer) for buffer in function.params] for symbol, function in written.items()
        }
        self.runs: dict[str, int] = {}

    def __call__(self, name: str) -> float:
        """See ``Sampler``; what waited for a processor is taken again, a few times."""
        symbol = self.symbols[name]
        with one_thread():
            if symbol not in self.runs:
                self.runs[symbol] = max(1, round(SAMPLE_S / self._seconds(symbol, 2)))
            return 1e6 * self._undisturbed(symbol, self.runs[symbol])

    def _undisturbed(self, symbol: str, runs: int) -> float:
        taken = []
        for _ in range(TRIES):
            start_s, ran_s = time.perf_counter(), time.thread_time()
            taken.append(self._seconds(symbol, runs))
            if time.thread_time() - ran_s >= (1 - WAITED) * (time.perf_counter() - start_s):
                break
        return min(taken)

    def _seconds(self, symbol: str, runs: int) -> float:
        evaluate = self.library.time_evaluator(symbol, tvm.cpu(), number=runs, repeat=1)
        return float(evaluate(*self.arguments[symbol]).mean)


class one_thread:  # noqa: N801 - used like a function
    """A context in which TVM's kernels run on the calling thread alone."""

    def __enter__(self) -> None:
        self.count = int(tvm.get_global_func("runtime.NumThreads")())
        self._use(1)

    def __exit__(self, *_: object) -> None:
        self._use(self.count)

    def _use(self, count: int) -> None:
        if int(tvm.get_global_func("runtime.NumThreads")()) != count:
            tvm.get_global_func("runtime.config_threadpool")(1, count)


def _tensor(buffer: Any) -> Any:
    return tvm.runtime.tensor(some_values([int(length) for length in buffer.shape], str(buffer.dtype)))


def some_values(dimensions: Sequence[int], dtype: str) -> Array:
    """Return values of ordinary size of any type: no infinities, no denormal numbers, which would change the speed."""
    rng = np.random.default_rng(0)
    if dtype.startswith("float"):
        return rng.uniform(0.5, 1.5, dimensions).astype(dtype)
    if dtype == "uint16":
        return rng.integers(*_BFLOAT16, dimensions).astype(dtype)
    return rng.integers(0, 100, dimensions).astype(dtype)
