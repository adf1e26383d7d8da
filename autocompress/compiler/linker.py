"""The compiler that links object files into a library for a target."""

from __future__ import annotations

import platform
import shutil
from typing import Any

from autocompress.compiler.target import Target
from autocompress.errors import MissingDependencyError

_TOOLS = dict.fromkeys(("armv7a", "armv7l"), "arm-linux-gnueabihf") | {"arm64": "aarch64-linux-gnu"}
"""First part of a triple -> what the names of its compiler begin with, where that is not the platform's own name."""


def linker(target: Target) -> Any:
    """Return the function that links for ``target``, as ``export_library`` of TVM takes it.

    Raises:
        MissingDependencyError: There is none.
    """
    from tvm.support import cc

    architecture = target.triple.split("-")[0] or platform.machine()
    tools = _TOOLS.get(architecture, f"{architecture}-linux-gnu")
    foreign = f"{tools}-g++" if architecture != platform.machine() else ""
    command = target.linker or foreign or str(cc.get_cc() or "g++")
    if shutil.which(command) is None:
        package = f"g++-{tools}" if command == foreign else command
        raise MissingDependencyError(
            f"The linker {command} is not installed.",
            right=f"A C++ compiler links the library for {target.cpu}.",
            next_step=f"Install it (on Debian: apt install {package}), or set device.engine to onnxruntime.",
        )
    return cc.cross_compiler(command)
