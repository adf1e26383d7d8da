"""Read and write values with units, such as ``60 ms`` and ``250 MiB``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

SIZE_BYTES: dict[str, int] = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
"""Unit of size -> bytes."""

TIME_MS: dict[str, float] = {"us": 1e-3, "ms": 1.0, "s": 1e3}
"""Unit of a latency -> milliseconds."""

ENERGY_MJ: dict[str, float] = {"uJ": 1e-3, "mJ": 1.0, "J": 1e3}
"""Unit of energy -> millijoules."""

TIME_HOURS: dict[str, float] = {"s": 1 / 3600, "min": 1 / 60, "h": 1.0}
"""Unit of a long time -> hours."""

_NUMBER_AND_UNIT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%µ]*)\s*")


def split_quantity(value: object) -> tuple[float, str]:
    """Split ``60 ms`` into 60.0 and ``ms``; a bare number has the unit ``""``.

    Raises:
        ValueError: ``value`` is neither a number nor a number and a unit.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number, unit = float(value), ""
    else:
        match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("Write a number and a unit.")
        number, unit = float(match[1]), match[2]
    if not math.isfinite(number):
        raise ValueError("Write a finite number.")
    return number, unit


def parse_quantity(value: object, units: Mapping[str, float], *, example: str, bare: str | None = None) -> float:
    """Return ``value`` in the unit whose factor is 1.

    Args:
        value: Text such as ``60 ms``, or a number where ``bare`` allows it.
        units: Allowed units and their factors.
        example: What a right value looks like, for the error.
        bare: The unit of a number without a unit; ``None`` demands a unit.

    Raises:
        ValueError: The value has no unit or another one; the message says which are right.
    """
    allowed = f"Write a number and one of {', '.join(units)}, for example '{example}'."
    try:
        number, unit = split_quantity(value)
    except ValueError:
        raise ValueError(allowed) from None
    factor = units.get(unit or bare or "")
    if factor is None:
        raise ValueError(allowed)
    return number * factor


def parse_size(value: object) -> int:
    """Return a size in bytes; a bare number is bytes.

    Raises:
        ValueError: The value is not a size of at least 0 whole bytes.
    """
    size = parse_quantity(value, SIZE_BYTES, example="4 GiB", bare="B")
    if size < 0 or size != int(size):
        raise ValueError("Write a size of whole bytes, for example '4 GiB'.")
    return int(size)


def format_size(size: int) -> str:
    """Write ``size`` bytes exactly, in the unit that needs the smallest number."""
    exact = [(size // factor, unit) for unit, factor in SIZE_BYTES.items() if size % factor == 0]
    number, unit = min(exact) if size else (0, "B")
    return f"{number} {unit}"


def format_number(number: float) -> str:
    """Write ``number`` so that reading it gives the same, without a useless ``.0``."""
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
