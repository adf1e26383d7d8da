"""Link a bundle of object files on the device that it is for: with its C++ compiler, without TVM's."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from autocompress.engines import append_constants, read_library
from autocompress.errors import MissingDependencyError, UnsupportedError

LINKER = "g++"


def link(bundle: Path, output: Path | None = None, *, linker: str = LINKER) -> Path:
    """Write the library of ``bundle``, the same that ``compiler.build`` writes where it can link, and return its path.

    Args:
        bundle: A ``.tar`` of ``compiler.build``.
        output: The library; by default beside the bundle, where the engine looks for it.
        linker: Command of the C++ compiler.

    Raises:
        UnsupportedError: The file is no such bundle, or its objects are not of this processor.
        MissingDependencyError: There is no such linker.
    """
    if bundle.suffix != ".tar" or not bundle.is_file():
        raise UnsupportedError(
            f"{bundle} is no bundle that can be linked.",
            right="A bundle is a file model.tar of object files and weights.",
            next_step="Export the model with --container tar.",
        )
    about, constants = read_library(bundle)
    if shutil.which(linker) is None:
        raise MissingDependencyError(
            f"The linker {linker} is not installed.",
            right="A C++ compiler links the library on the device.",
            next_step="Install it (on Debian: apt install g++), or name another with --linker.",
        )
    output = output or bundle.with_suffix(".so")
    names = [str(tensor.pop("name")) for tensor in about.pop("tensors")]
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        library = Path(folder, output.name)
        _link(_objects(bundle, Path(folder)), library, linker, str(about.get("target", "")))
        append_constants(library, zip(names, constants, strict=True), about)
        library.replace(output)
    return output


def _objects(bundle: Path, folder: Path) -> list[Path]:
    with tarfile.open(bundle, "r:") as files:
        members = [member for member in files.getmembers() if member.name.endswith(".o")]
        files.extractall(folder, members, filter="data")
    return [folder / member.name for member in members]


def _link(objects: list[Path], library: Path, linker: str, target: str) -> None:
    command = [linker, "-shared", "-fPIC", "-o", str(library), *map(str, objects)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnsupportedError(
            f"{linker} cannot link the objects: {done.stderr.strip()[-300:]}",
            right=f"They are for {target}; a compiler for that processor links them.",
            next_step="Link on that device, or name its cross compiler with --linker.",
        )
