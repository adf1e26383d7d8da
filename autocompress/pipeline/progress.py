"""How a long stage says where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""(stage, steps done, steps in all, a note), e.g. ("search", 3, 12, "best 0.951"). Called at least when a stage begins
(done = 0) and when it ends (done = all)."""


def quiet(stage: str, done: int, total: int, note: str) -> None:
    """Say nothing."""
