"""A clock that stands still unless told to go on, and calls that take known times by it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count


class Clock:
    """Seconds, monotonic."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def taking(clock: Clock, *times_s: float) -> Callable[[], None]:
    """A call that takes these times in turn, the last one for ever."""
    numbers = count()

    def call() -> None:
        clock.now_s += times_s[min(next(numbers), len(times_s) - 1)]

    return call
