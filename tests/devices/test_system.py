from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.devices.system import emulator


@pytest.mark.parametrize(("program", "said"), [("qemu-aarch64-static", "qemu-aarch64-static"), ("python3.11", "")])
def test_an_emulator_is_told_by_the_program_behind_the_process(monkeypatch, tmp_path, program, said):
    monkeypatch.setattr(Path, "readlink", lambda path: Path("/usr/bin", program))
    assert emulator() == said


def test_this_process_is_not_emulated():
    assert emulator() == ""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux tells which program runs")
def test_a_process_whose_program_is_called_qemu_is_found(tmp_path):
    python = Path(shutil.copy(Path(sys.executable).resolve(), tmp_path / "qemu-python"))
    code = "from autocompress.devices.system import emulator; print(emulator())"
    libraries = ":".join(path for path in sys.path if path)
    surroundings = os.environ | {"PYTHONPATH": libraries, "PYTHONHOME": sys.base_prefix}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=surroundings, check=True)
    assert done.stdout.strip() == "qemu-python"
