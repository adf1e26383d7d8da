"""The artifacts that a board holds, each under the hash of its content, so that none is sent twice or half."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{1,8}")
_PART = ".part"


def content_name(path: Path) -> str:
    """Return the name of a file in every store: the SHA-256 of its content, and its suffix."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() + path.suffix


@dataclass(frozen=True)
class Store:
    """A folder of artifacts. It is one agent's alone, and emptied when that starts.

    Attributes:
        folder: Need not exist.
    """

    folder: Path

    def clear(self) -> None:
        """Remove what an agent that was killed left behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def path(self, name: str) -> Path:
        """Return where an artifact is, or will be.

        Raises:
            ValueError: The name is none of ``content_name``.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an artifact")
        return self.folder / name

    def held_bytes(self, name: str) -> int:
        """Return how many bytes of an artifact are here already."""
        for path in (self.path(name), self._part(name)):
            if path.exists():
                return path.stat().st_size
        return 0

    def put(self, name: str, offset: int, data: bytes, total_bytes: int) -> int:
        """Write a part of an artifact and return how many bytes are here; after the last, check its content.

        Raises:
            OSError: The disk is full; what has come of it is removed.
            ValueError: The content is not what the name says; it is removed.
        """
        part = self._part(name)
        try:
            with part.open("r+b" if part.exists() else "wb") as file:
                file.seek(offset)
                file.truncate()
                file.write(data)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        held = part.stat().st_size
        if held == total_bytes:
            with part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if not name.startswith(found):
                part.unlink()
                raise ValueError(f"the content of {name} arrived as {found}")
            part.replace(self.path(name))
        return held

    def remove(self, name: str) -> None:
        """Remove an artifact, or what has come of it; no error where nothing has."""
        for path in (self.path(name), self._part(name)):
            path.unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        path = self.path(name)
        return path.with_name(path.name + _PART)
