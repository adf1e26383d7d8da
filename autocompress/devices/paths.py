"""Where data files live: the user's folder, the source checkout, the installed package; how they are written."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def home() -> Path:
    """Return the user's folder: ``$AUTOCOMPRESS_HOME``, or ``~/.autocompress``. It need not exist."""
    return Path(os.environ.get("AUTOCOMPRESS_HOME") or "~/.autocompress").expanduser()


def cache_folder() -> Path:
    """Return where downloads are kept, and what was trained or computed of them. It need not exist."""
    return home() / "cache"


def data_folders(kind: str) -> tuple[Path, ...]:
    """Return the folders that hold files of one kind, in search order; the first is the one to write to.

    Args:
        kind: ``device_profiles``, ``latency_models`` or ``tuning``.
    """
    folders = [home() / kind]
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        folders.append(_PACKAGE.parent / kind)
    folders.append(_PACKAGE / "_data" / kind)
    return tuple(folders)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, whoever else writes it: what was there before stays if the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
