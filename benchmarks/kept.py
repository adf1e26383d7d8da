"""What a benchmark of hours has found so far, kept so that it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Kept(Generic[K, R]):
    """Results by their keys, in memory and, given a path, as lines of JSON in a file, which is read first.

    Args:
        path: Of the file, which need not exist.
        read: The fields of a line -> a result (a dataclass).
        key: Of a result.
    """

    def __init__(self, path: Path | None, read: Callable[[Mapping[str, Any]], R], key: Callable[[R], K]) -> None:
        self._path, self._key = path, key
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {key(each): each for each in (read(json.loads(line)) for line in lines)}

    def get(self, key: K) -> R | None:
        """Return what came of ``key``, or ``None``."""
        return self._known.get(key)

    def add(self, result: R) -> R:
        """Keep a result, if it is not known, and return it."""
        if self._key(result) not in self._known:
            self._known[self._key(result)] = result
            if self._path:
                with self._path.open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
        return result


def reader(result: Callable[..., R], setting: Callable[..., Any]) -> Callable[[Mapping[str, Any]], R]:
    """Return what reads a ``result`` that names a ``setting``, both dataclasses."""
    return lambda line: result(**{**line, "setting": setting(**line["setting"])})
