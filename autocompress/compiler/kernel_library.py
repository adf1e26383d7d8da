"""Compile kernels by themselves, to time them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from autocompress.compiler.kernel_sampler import CompiledKernel
from autocompress.compiler.program import Kernel
from autocompress.compiler.relax_graph import kernel_options, write_kernel


def compile_kernels(kernels: Mapping[str, Kernel], target: tvm.target.Target) -> tuple[Any, dict[str, CompiledKernel]]:
    """Return one library of all kernels, and name -> kernel in it."""
    symbols = {name: f"kernel_{index}" for index, name in enumerate(kernels)}
    written = {symbols[name]: write_kernel(kernel, symbols[name]) for name, kernel in kernels.items()}
    library, compiled = compile_functions(written, target)
    return library, {name: compiled[symbol] for name, symbol in symbols.items()}


def compile_functions(written: Mapping[str, Any], target: tvm.target.Target) -> tuple[Any, dict[str, CompiledKernel]]:
    """Return one library of functions that are named as their keys say, and key -> kernel in it."""
    with kernel_options():
        library = tvm.compile(tvm.IRModule(dict(written)), target=target).mod
    return library, {symbol: CompiledKernel(symbol, _arguments(function)) for symbol, function in written.items()}


def _arguments(function: Any) -> tuple[tuple[tuple[int, ...], str], ...]:
    return tuple((tuple(int(length) for length in buffer.shape), str(buffer.dtype)) for buffer in function.params)
