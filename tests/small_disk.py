"""A disk of its own that can be filled up and made larger."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A mounted memory disk, which is given out in pages of 4 KiB."""

    folder: Path

    def resize(self, size_bytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(self.folder)], check=True)

    def fill(self) -> None:
        """Take all free room away: what is written next fits only into the last page of its file."""
        about = os.statvfs(self.folder)
        self.resize((about.f_blocks - about.f_bfree) * about.f_frsize)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)
