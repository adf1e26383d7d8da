"""Compile and run one kernel on this machine."""

import numpy as np
import tvm

from autocompress.compiler.relax_graph import kernel_options
from autocompress.compiler.target import Target


def compiled(kernel, target=None):
    """Return the library of one kernel named ``kernel``."""
    with kernel_options():
        return tvm.compile(tvm.IRModule({"kernel": kernel}), target=target or Target.host().llvm())


def run(kernel, inputs, outputs):
    """Run a kernel written under the name ``kernel``; outputs are (dimensions, dtype), filled with junk first."""
    results = [tvm.runtime.tensor(np.full(shape, 77, dtype)) for shape, dtype in outputs]
    compiled(kernel)["kernel"](*(tvm.runtime.tensor(np.ascontiguousarray(value)) for value in inputs), *results)
    return [result.numpy() for result in results]
