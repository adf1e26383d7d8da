"""What a teacher gave, kept on disk: tables of rows of several lengths, found by what they are of, bounded in size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.generic]
_FILLED = b"\1"


class Table:
    """Rows (lengths[i] x width) of one type, each there or not; several processes may fill it at once.

    A row is marked after it was written, so that one which a killed process left in the middle is not read.

    Args:
        path: Of a file of ``table_bytes``: all rows, then a byte a row, 1 where it is filled.
        lengths: Of the rows.
        width: Of each.
        dtype: Of the values.
    """

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: str) -> None:
        self._path, self._width, self._dtype = path, width, np.dtype(dtype)
        self._starts = np.cumsum([0, *lengths]) * width * self._dtype.itemsize

    def read(self, places: Sequence[int]) -> list[Row] | None:
        """Return the rows at ``places``; ``None`` if one of them is not filled, or the file is gone."""
        found = []
        try:
            with _opened(self._path, os.O_RDONLY) as file:
                for place in places:
                    if os.pread(file, 1, self._starts[-1] + place) != _FILLED:
                        return None
                    start, end = self._starts[place : place + 2].tolist()
                    found.append(np.frombuffer(os.pread(file, end - start, start), self._dtype))
        except OSError:
            return None
        return [row.reshape(-1, self._width) for row in found]

    def write(self, places: Sequence[int], rows: Sequence[Row]) -> None:
        """Fill rows. A full disk, or a file that was removed meanwhile, is no error: rows stay unfilled."""
        with suppress(OSError), _opened(self._path, os.O_WRONLY) as file:
            for place, row in zip(places, rows, strict=True):
                data, start = np.ascontiguousarray(row, self._dtype).tobytes(), int(self._starts[place])
                assert start + len(data) == self._starts[place + 1]
                if os.pwrite(file, data, start) == len(data):
                    os.pwrite(file, _FILLED, self._starts[-1] + place)


class OutputStore:
    """A folder of tables that together are no larger than a bound; the least recently used ones go.

    Nothing is synced: a crash of the machine, unlike one of the program, may leave marks without their rows.

    Args:
        folder: Made when it is needed.
        limit_bytes: Of all tables, as large as they are when filled.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes

    def table(self, content: str, lengths: Sequence[int], width: int, dtype: str) -> Table | None:
        """Return the table of ``content``, empty if it is new; ``None`` where it cannot be kept.

        Args:
            content: Says all that decides what is in it.
            lengths: Of its rows.
            width: Of each.
            dtype: numpy's name of the type of its values.
        """
        described = repr((content, tuple(lengths), width, dtype)).encode()
        path = self._folder / f"{hashlib.sha256(described).hexdigest()[:32]}.rows"
        size = sum(lengths) * width * np.dtype(dtype).itemsize + len(lengths)
        try:
            if path.exists():
                os.utime(path)
            elif not self._make(path, size):
                return None
        except OSError:
            return None
        return Table(path, lengths, width, dtype)

    def _make(self, path: Path, size: int) -> bool:
        """Make a file of holes, if there is room for it or can be made."""
        if size > self._limit_bytes:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        others = sorted(self._folder.glob("*.rows"), key=lambda other: other.stat().st_mtime)
        taken = sum(other.stat().st_size for other in others)
        for other in others:
            if taken + size > self._limit_bytes:
                taken -= other.stat().st_size
                other.unlink(missing_ok=True)
        draft = path.with_name(f".{path.name}-{os.getpid()}")
        with draft.open("wb") as file:
            file.truncate(size)
        draft.replace(path)
        return True


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags)
    try:
        yield file
    finally:
        os.close(file)
