"""Run a program of kernels on a processor for which there is no TVM runtime: one static executable under qemu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi.libinfo

from autocompress.compiler.graph import Array, Weights
from autocompress.compiler.lowering import lower
from autocompress.compiler.program import Program, Tensor
from autocompress.compiler.relax_graph import kernel_options, write_kernel
from autocompress.compiler.target import Target, machine_of
from autocompress.errors import MissingDependencyError
from autocompress.shape import ModelShape

SOURCE = Path(__file__).with_name("harness.cc")
CODES = {"i": 0, "u": 1, "f": 2}
"""Kind of a numpy type -> DLPack's type code."""


@dataclass(frozen=True)
class Processor:
    """An emulated processor and the Debian packages that build for it and run it.

    Attributes:
        target: What the kernels are compiled for.
        prefix: Of the names of its compiler's commands.
        emulator: Command that runs its programs, up to the program.
    """

    target: Target
    prefix: str
    emulator: tuple[str, ...]

    def check(self) -> None:
        """Raise ``MissingDependencyError`` where a command is not installed."""
        needed = {f"{self.prefix}-g++": f"g++-{self.prefix}", **dict.fromkeys(self.emulator[:1], "qemu-user-static")}
        missing = {command: package for command, package in needed.items() if shutil.which(command) is None}
        if missing:
            raise MissingDependencyError(
                f"Not installed: {', '.join(missing)}.",
                right=f"Kernels for {self.target} are linked and run by them.",
                next_step=f"On Debian: apt-get install --no-install-recommends {' '.join(missing.values())}",
            )

    def link(self, kernels: Mapping[str, object], folder: Path) -> Path:
        """Return an executable of the harness with ``kernels`` (name -> PrimFunc), built in ``folder``."""
        self.check()
        functions = {name: kernel.with_attr("global_symbol", name) for name, kernel in kernels.items()}
        with kernel_options():
            compiled = tvm.compile(tvm.IRModule(functions), target=self.target.llvm())
        compiled.mod.write_to_file(str(folder / "kernels.o"))
        (folder / "table.cc").write_text(_table(list(kernels)))
        includes = [f"-I{path}" for path in tvm_ffi.libinfo.include_paths()]
        options = ["-std=c++17", "-O1", "-static", "-Wall", "-Werror", "-Wno-psabi"]
        files = [str(folder / "table.cc"), str(folder / "kernels.o"), "-o", str(folder / "harness")]
        subprocess.run([f"{self.prefix}-g++", *options, *includes, *files], check=True)
        return folder / "harness"

    def run(self, executable: Path, script: bytes, output: Tensor) -> Array:
        """Return ``output`` after ``script``.

        Raises:
            subprocess.CalledProcessError: A kernel refused its arguments, or the processor an instruction.
        """
        given, written = executable.with_name("script"), executable.with_name("output")
        given.write_bytes(script)
        subprocess.run([*self.emulator, executable, given, written], check=True, capture_output=True, timeout=300)
        return np.fromfile(written, output.dtype).reshape(output.dimensions)


def run_encoder(processor: Processor, shape: ModelShape, weights: Weights, inputs: list[Array], folder: Path) -> Array:
    """Return the logits of an encoder for ``inputs``: ids and mask, both (batch x tokens)."""
    batch, tokens = inputs[0].shape
    program = lower(shape, batch=batch, tokens=tokens, machine=machine_of(processor.target.llvm()))
    kernels = {name: write_kernel(kernel, name) for kernel, name in program.names().items()}
    executable = processor.link(kernels, folder)
    return processor.run(executable, b"".join(_script(program, weights, inputs)), program.output)


def _script(program: Program, weights: Weights, inputs: list[Array]) -> Iterator[bytes]:
    for tensor, values in zip(program.inputs, inputs, strict=True):
        yield given(tensor, values)
    for constant in program.constants:
        yield given(constant.tensor, constant.pack(weights))
    names = program.names()
    for call in program.calls:
        for tensor in call.outputs:
            yield room(tensor)
        yield called(names[call.kernel], [*call.inputs, *call.outputs])
    yield f"write {program.output.name}\n".encode()


def given(tensor: Tensor, values: Array) -> bytes:
    """Return the lines of a tensor with values."""
    assert (values.shape, values.dtype) == (tensor.dimensions, np.dtype(tensor.dtype))
    return b"tensor " + _header(tensor) + np.ascontiguousarray(values).tobytes() + b"\n"


def room(tensor: Tensor) -> bytes:
    """Return the line of a tensor that a kernel writes."""
    return b"room " + _header(tensor)


def called(kernel: str, arguments: list[Tensor]) -> bytes:
    """Return the line that calls ``kernel``."""
    return " ".join(["call", kernel, str(len(arguments)), *(tensor.name for tensor in arguments), "\n"]).encode()


def _header(tensor: Tensor) -> bytes:
    dtype = np.dtype(tensor.dtype)
    numbers = [CODES[dtype.kind], 8 * dtype.itemsize, len(tensor.dimensions), *tensor.dimensions]
    return f"{tensor.name} {' '.join(map(str, numbers))}\n".encode()


def _table(names: list[str]) -> str:
    functions = "".join(f'extern "C" std::remove_pointer_t<Kernel> __tvm_ffi_{name};\n' for name in names)
    entries = ", ".join(f'{{"{name}", __tvm_ffi_{name}}}' for name in names)
    counted = f"const int KERNEL_COUNT = {len(names)};\n"
    return f'#include "{SOURCE}"\n{functions}const Entry KERNELS[] = {{{entries}}};\n{counted}'
