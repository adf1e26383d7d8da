"""What a benchmark of hours has found so far, kept so that it goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
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
        until_s: On the monotonic clock: nothing new begins from then on.
    """

    def __init__(
        self,
        path: Path | None,
        read: Callable[[Mapping[str, Any]], R],
        key: Callable[[R], K],
        *,
        until_s: float = math.inf,
    ) -> None:
        self._path, self._key, self._until_s = path, key, until_s
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {key(each): each for each in (read(json.loads(line)) for line in lines)}

    @property
    def late(self) -> bool:
        """Whether time is over."""
        return time.monotonic() >= self._until_s

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

    def found(self, keys: Iterable[K]) -> list[R]:
        """Return what is known of ``keys``, in their order."""
        return [each for key in keys if (each := self.get(key))]

    def made(self, keys: Iterable[K], make: Callable[[K], R]) -> list[R]:
        """Return what came of each key, as far as it is known or could be made in time."""
        keys = list(keys)
        for key in keys:
            if not self.get(key) and not self.late:
                self.add(make(key))
        return self.found(keys)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be interrupted: ``--records`` and ``--minutes``."""
    parser.add_argument("--records", type=Path, help="keep what is found in this file, and go on with what it holds")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so long")


def kept_of(arguments: argparse.Namespace, read: Callable[[Mapping[str, Any]], R], key: Callable[[R], K]) -> Kept[K, R]:
    """Return where results are kept, as ``add_options`` asked; its minutes begin now."""
    return Kept(arguments.records, read, key, until_s=time.monotonic() + 60.0 * arguments.minutes)


def reader(result: Callable[..., R], setting: Callable[..., Any]) -> Callable[[Mapping[str, Any]], R]:
    """Return what reads a ``result`` that names a ``setting``, both dataclasses."""
    return lambda line: result(**{**line, "setting": setting(**line["setting"])})
