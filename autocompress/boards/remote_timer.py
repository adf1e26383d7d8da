"""Time kernels on a board: compiled here, sent as one library, run there in a fresh process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autocompress.boards.connection import Connection
from autocompress.boards.kernel_worker import KernelRequest
from autocompress.boards.uploads import Uploads
from autocompress.compiler.kernel_sampler import CompiledKernel
from autocompress.cost import Failure

if TYPE_CHECKING:
    from autocompress.compiler.program import Kernel
    from autocompress.compiler.target import Target

START_S = 60.0
"""Seconds in which the worker must be ready; a small board takes several to start Python."""
SAMPLE_S = 5.0
"""Seconds that a sample may take on average; the largest products take one on the slowest boards."""
KEEPS = 2
"""Libraries that are held on the board; none is asked for again once its class is timed."""


class RemoteTimer:
    """Satisfies ``tuning.Timer`` for a board, within a ``with`` block.

    Args:
        connection: The way to the board.
        target: What its processor is compiled for.
    """

    def __init__(self, connection: Connection, target: Target) -> None:
        self._target = target
        self._uploads = Uploads(connection, KEEPS)
        self._folder = tempfile.TemporaryDirectory(prefix="autocompress-")
        self._libraries = 0

    def __enter__(self) -> RemoteTimer:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
        self._uploads.clear()

    def __call__(self, kernels: Mapping[str, Kernel]) -> RemoteSampler:
        """See ``tuning.Timer``.

        Raises:
            MissingDependencyError: There is no compiler that links for the board.
        """
        from autocompress.compiler.kernel_library import compile_kernels
        from autocompress.compiler.linker import linker

        link = linker(self._target)
        library, compiled = compile_kernels(kernels, self._target.llvm())
        path = Path(self._folder.name, f"kernels{self._libraries}.so")
        library.export_library(str(path), fcompile=link)
        self._libraries += 1
        return RemoteSampler(self._uploads, path, compiled)


@dataclass(frozen=True)
class RemoteSampler:
    """Satisfies ``tuning.Sampler`` for the kernels of a library.

    Attributes:
        uploads: The way to the board.
        path: The library, here.
        kernels: Name -> kernel in it.
    """

    uploads: Uploads
    path: Path
    kernels: Mapping[str, CompiledKernel]

    def __call__(self, order: Sequence[str]) -> dict[str, list[float] | Failure]:
        """See ``Sampler``. A kernel that crashes fails alone; if the worker does, or it hangs, all kernels fail.

        Raises:
            DeviceError: The board cannot be reached.
        """
        names = dict.fromkeys(order)
        kernels = {name: self.kernels[name] for name in names}
        request = KernelRequest("", kernels, order).to_json()
        timeout_s = START_S + SAMPLE_S * len(order)
        answer = self.uploads.ask("time_kernels", self.path, request, timeout_s=timeout_s, step="timing kernels")
        if "failure" in answer:
            return dict.fromkeys(names, Failure(str(answer["failure"])))
        failures = {name: Failure(str(reason)) for name, reason in answer["failures"].items()}
        return {name: failures.get(name) or list(map(float, answer["times_us"][name])) for name in names}
