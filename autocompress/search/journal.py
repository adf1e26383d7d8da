"""The journal: one file that several processes of one machine append to, and none of them can spoil."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock

STALE_LOCK_S = 5
"""Seconds after which the lock of a killed process no longer counts; one write takes milliseconds."""
BLOCK_BYTES = 4096


class Journal(BaseJournalBackend):
    """Optuna's file, whose last line is first cut off if a full disk or a crash left it unfinished.

    The next line would be glued to it, and nobody could read the file any more. What a line says counts once it is
    whole, so nothing is lost.

    Args:
        path: Of the file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = JournalFileBackend(str(path), _Mending(path))

    def read_logs(self, log_number_from: int) -> Any:
        """Yield what was written from that line on."""
        return self._file.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines down; when this returns, they are on the disk."""
        self._file.append_logs(logs)


class _Mending(JournalFileSymlinkLock):
    """The lock under which the file is written, and mended before."""

    def __init__(self, path: Path) -> None:
        # The lock is a link to the journal: a relative one would point nowhere, and then never counts as stale.
        super().__init__(str(path.absolute()), grace_period=STALE_LOCK_S)
        self._journal = path.absolute()

    def acquire(self) -> bool:
        acquired = super().acquire()
        try:
            _cut_off_half_line(self._journal)
        except BaseException:
            self.release()
            raise
        return acquired


def _cut_off_half_line(path: Path) -> None:
    with path.open("rb+") as file:
        start = end = file.seek(0, os.SEEK_END)
        rest = b""
        while start > 0 and b"\n" not in rest:
            start = max(0, start - BLOCK_BYTES)
            file.seek(start)
            rest = file.read(end - start)
        half = rest.rpartition(b"\n")[2]
        if half.startswith(b"{"):  # Anything else is damage, which is left as it is.
            file.truncate(end - len(half))
