"""Time kernels on this machine, on one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm_ffi

from autocompress.compiler.kernel_library import compile_functions, compile_kernels
from autocompress.compiler.kernel_sampler import TRIES, KernelSampler
from autocompress.compiler.program import Kernel
from autocompress.compiler.target import Target


class LocalTimer:
    """Satisfies ``tuning.Timer`` for a target that this machine can run."""

    def __init__(self, target: Target) -> None:
        self.target = target.llvm()

    def __call__(self, kernels: Mapping[str, Kernel]) -> KernelSampler:
        """See ``tuning.Timer``."""
        return KernelSampler(tvm_ffi, *compile_kernels(kernels, self.target))

    def time_us(self, function: Any) -> float:
        """Return the time of a function named ``kernel_0``, in microseconds."""
        sample = KernelSampler(tvm_ffi, *compile_functions({"kernel_0": function}, self.target))
        return min(sample(["kernel_0"] * TRIES)["kernel_0"])
