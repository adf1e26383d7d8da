"""Read the files in which Linux shows its hardware; one that is absent or not for this user tells nothing."""

from __future__ import annotations

from pathlib import Path

SYS = Path("/sys")


def read_text(path: Path) -> str:
    """Return what a file says, "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """Return the number that a file holds, ``None`` where there is none."""
    try:
        return float(read_text(path))
    except ValueError:
        return None
