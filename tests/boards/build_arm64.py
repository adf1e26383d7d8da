"""Build the emulated board: an arm64 Debian with Python, TVM and ONNX Runtime, run by qemu's user emulation.

    python tests/boards/build_arm64.py [FOLDER]

FOLDER is ``$AUTOCOMPRESS_EMULATED``, or ``~/.cache/autocompress-emulated``. A root that is finished is kept, any other
is built anew. Nothing has to be registered with the kernel (binfmt), and nothing is mounted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autocompress.errors import AutoCompressError, MissingDependencyError

SUITE, PYTHON = "bookworm", "3.11"
SYSTEM = ("python3", "libgomp1", "libstdc++6", "libffi8")
"""Debian packages beside the minimal system."""
SITE = "opt/site"
"""Where the root keeps its Python packages."""
PINNED = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnxruntime", "psutil")
"""Python packages of the board, in the versions that this project asks for."""
FREE = ("cloudpickle", "ml_dtypes", "tornado", "typing_extensions")
"""What TVM's RPC server needs beside them."""
TOOLS = {"debootstrap": "debootstrap", "dpkg-deb": "dpkg", "tar": "tar", "qemu-aarch64-static": "qemu-user-static"}
"""Command -> Debian package."""
PROJECT = Path(__file__).parents[2]
CORES = 4
"""Processors that the board's files tell of."""
CORE = """processor\t: {index}
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
"""One processor in /proc/cpuinfo."""


class BoardError(AutoCompressError):
    """The emulated board cannot be built."""


def default_folder() -> Path:
    """Return the folder in which the root lies when none is named."""
    return Path(os.environ.get("AUTOCOMPRESS_EMULATED") or Path.home() / ".cache" / "autocompress-emulated")


def build(folder: Path) -> Path:
    """Return a finished root in ``folder``, built if there is none; two builders wait for each other.

    Raises:
        MissingDependencyError: A command is not installed.
        BoardError: The root cannot be built by this user, or a step failed.
    """
    root = folder / "arm64"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not is_finished(root):
            _check_tools()
            _build(root, folder / "arm64.partial")
    return root


def finished(folder: Path) -> Path:
    """Return the root in ``folder``.

    Raises:
        MissingDependencyError: It was not built, or does not start.
    """
    root = folder / "arm64"
    if not is_finished(root):
        raise MissingDependencyError(
            f"There is no emulated board in {folder}.",
            right="Libraries for 64-bit Arm are run on an arm64 Debian under qemu.",
            next_step=f"Run as root: {sys.executable} {Path(__file__)} {folder}",
        )
    return root


def is_finished(root: Path) -> bool:
    """Return whether ``root`` was built by this recipe and its Python still starts with what runs artifacts."""
    mark = root / "recipe"
    if not mark.is_file() or mark.read_text() != _recipe():
        return False
    program = python(root, "cortex-a53", "-c", "import numpy, onnxruntime, tvm_ffi")
    try:
        started = subprocess.run(program, env=environment(root), capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return started.returncode == 0


def python(root: Path, cpu: str, *arguments: str) -> list[str]:
    """Return the command that runs the board's Python on an emulated ``cpu``; files of the host keep their paths."""
    return ["qemu-aarch64-static", "-cpu", cpu, "-L", str(root), f"{root}/usr/bin/python{PYTHON}", *arguments]


def environment(root: Path) -> Mapping[str, str]:
    """Return the environment of the board's programs: nothing of the host's but its commands."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{root / SITE}:{PROJECT}", "PYTHONDONTWRITEBYTECODE": "1"}


def _recipe() -> str:
    return "\n".join([*_requirements(), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()])


def _requirements() -> list[str]:
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    named = {re.split(r"[=<>~!\[; ]", requirement)[0]: requirement for requirement in asked}
    return [*(named[name] for name in PINNED), *FREE]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_tools() -> None:
    missing = [command for command in TOOLS if shutil.which(command) is None]
    if missing:
        packages = " ".join(TOOLS[command] for command in missing)
        raise MissingDependencyError(
            f"Not installed: {', '.join(missing)}.",
            right=f"The emulated board is built and run by {', '.join(TOOLS)}.",
            next_step=f"On Debian: apt-get install --no-install-recommends {packages}",
        )
    if os.geteuid() != 0:
        raise BoardError(
            "This user cannot build the emulated board.",
            right="debootstrap only works for root.",
            next_step=f"Run: sudo {sys.executable} {Path(__file__)} FOLDER, then set AUTOCOMPRESS_EMULATED=FOLDER.",
        )


def _build(root: Path, partial: Path) -> None:
    (root / "recipe").unlink(missing_ok=True)
    for leftover in (root, partial):
        shutil.rmtree(leftover, ignore_errors=True)
    log = partial.with_name("arm64.log")
    log.unlink(missing_ok=True)
    options = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include={','.join(SYSTEM)}"]
    _step(["debootstrap", *options, SUITE, str(partial)], log)
    for package in sorted((partial / "var/cache/apt/archives").glob("*.deb")):
        # The second stage would run arm64 programs; unpacked, the packages are all that Python needs.
        unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -xf - -C "$2" --keep-directory-symlink'
        _step(["bash", "-o", "pipefail", "-c", unpack, "unpack", str(package), str(partial)], log)
        package.unlink()
    _describe_processors(partial)
    wheels = partial / "tmp" / "wheels"
    _step([sys.executable, *_download(wheels)], log)
    for wheel in sorted(wheels.iterdir()):
        zipfile.ZipFile(wheel).extractall(partial / SITE)
    shutil.rmtree(wheels)
    # The first import writes the byte code, which takes an emulated processor long.
    first = python(partial, "cortex-a53", "-c", "import onnxruntime, tvm.rpc.server")
    _step(first, log, environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(partial / SITE)})
    (partial / "recipe").write_text(_recipe())
    partial.rename(root)
    if not is_finished(root):
        raise _failed("The board's Python does not start with its packages", log)


def _describe_processors(root: Path) -> None:
    """Hide the host's processors: ONNX Runtime looks for Arm's in these files, and crashes where it finds others."""
    proc, system = root / "proc", root / "sys/devices/system/cpu"
    proc.unlink()
    proc.mkdir()
    (proc / "cpuinfo").write_text("".join(CORE.format(index=index) for index in range(CORES)))
    system.mkdir(parents=True)
    for name in ("possible", "present"):
        (system / name).write_text(f"0-{CORES - 1}\n")


def _download(folder: Path) -> list[str]:
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (17, 24, 27, 28)]
    interpreter = [f"--python-version={PYTHON}", "--implementation=cp"]
    options = ["--only-binary=:all:", "--platform=manylinux2014_aarch64", *platforms, *interpreter]
    return ["-m", "pip", "download", "--quiet", f"--dest={folder}", *options, *_requirements()]


def _step(command: list[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
    with log.open("ab") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise _failed(f"{' '.join(command[:3])} … ended with {done.returncode}", log)


def _failed(wrong: str, log: Path) -> BoardError:
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return BoardError(
        f"{wrong}: {' '.join(last)}",
        right="Packages come from Debian's archive and the Python package index.",
        next_step=f"Read {log}, then run {Path(__file__)} again; it begins anew.",
    )


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else default_folder()))  # noqa: T201
    except AutoCompressError as error:
        sys.exit(str(error))
