"""Folders that look like /sys and /proc."""

from __future__ import annotations

from pathlib import Path


def plant(root: Path, files: dict[str, object]) -> Path:
    """Write path -> content below ``root``, each with the end of line that the kernel writes."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root
