"""An agent on the emulated 64-bit Arm board, whose processes start each other through qemu."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.boards import build_arm64
from tests.boards.agents import Agent, agent

CPU = "cortex-a76"
EMULATOR = "qemu-aarch64-static"
CORE = """processor\t: {index}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
"""What Linux says of one core of ``CPU``, which has the dot products (asimddp) that the board's own files leave out."""


@contextmanager
def arm64_agent(folder: Path, *options: str) -> Iterator[Agent]:
    """Start an agent on the board and give it when it serves; ``folder`` is for its files.

    Raises:
        MissingDependencyError: The board was not built.
    """
    root = build_arm64.finished(build_arm64.default_folder())
    python = folder / "python"
    program = build_arm64.python(_with_cores(root, folder / "root"), CPU)
    python.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
    python.chmod(0o755)
    # Nothing is registered with the kernel, so each new process has to be started as the first one is.
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(python)!r}\n")
    found = build_arm64.environment(root)
    variables = {**found, "PYTHONPATH": f"{folder}:{found['PYTHONPATH']}"}
    with agent(folder / "home", *options, python=str(python), variables=variables) as started:
        yield started


def _with_cores(root: Path, view: Path) -> Path:
    """Return a folder that looks like ``root`` but tells of the cores of ``CPU``."""
    view.mkdir()
    for name in ("lib", "usr", "sys"):
        (view / name).symlink_to(root / name)
    (view / "proc").mkdir()
    (view / "proc/cpuinfo").write_text("".join(CORE.format(index=index) for index in range(build_arm64.CORES)))
    return view
