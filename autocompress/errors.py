"""The ways in which AutoCompress fails, each with what was wrong, what would be right and what to do next."""

from __future__ import annotations

from typing import ClassVar


class AutoCompressError(Exception):
    """A failure that the user can act on.

    Args:
        wrong: What was wrong, with the offending value.
        right: What would be right.
        next_step: What to do next, a command where there is one.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, wrong: str, *, right: str, next_step: str) -> None:
        super().__init__(f"{wrong} {right} {next_step}")
        self.wrong, self.right, self.next_step = wrong, right, next_step

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.wrong, self.right, self.next_step)


def _rebuild(kind: type[AutoCompressError], wrong: str, right: str, next_step: str) -> AutoCompressError:
    return kind(wrong, right=right, next_step=next_step)


class ConfigError(AutoCompressError):
    """A key, value, unit or path in the configuration or on the command line is wrong."""


class SourceError(AutoCompressError):
    """A model or data source cannot be found, read, verified, or does not hold what the task needs."""


class UnsupportedError(AutoCompressError):
    """A model, task, bit width or engine is asked for something that it cannot do."""


class OutOfRangeError(AutoCompressError):
    """A predictor is asked about a shape outside the range on which it was fitted."""


class StorageError(AutoCompressError):
    """A run directory or study file is corrupted, full, locked, or belongs to another run."""


class MissingDependencyError(AutoCompressError):
    """An optional package is not installed."""


class InfeasibleError(AutoCompressError):
    """No candidate can meet, or did meet, the budget."""

    exit_code = 3


class DeviceError(AutoCompressError):
    """A device cannot be reached, or a measurement on it failed."""

    exit_code = 4


class ParityError(AutoCompressError):
    """An exported artifact does not compute what the searched student computes."""

    exit_code = 5
