"""Write numbers for people: a figure with its unit, an interval, a share, a score."""

from __future__ import annotations

from autocompress.cost import Estimate

TITLES: dict[str, str] = {
    "latency_p50_ms": "median latency",
    "latency_p95_ms": "p95 latency",
    "peak_memory_bytes": "peak memory",
    "size_bytes": "size on disk",
    "energy_mj": "energy",
}
"""What the figures of ``cost.LIMITS`` are called in a sentence."""

ABSENT = "–"


def figure(name: str, value: float | None) -> str:
    """Write ``value`` in the unit that ``name`` ends in (``_ms``, ``_mj`` or ``_bytes``), to three figures.

    Raises:
        KeyError: ``name`` ends in another unit.
    """
    if value is None:
        return ABSENT
    for ending, unit in (("_ms", "ms"), ("_mj", "mJ")):
        if name.endswith(ending):
            return f"{_three(value)} {unit}"
    if not name.endswith("_bytes"):
        raise KeyError(name)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1023.5:
            return f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} GiB"


def _three(value: float) -> str:
    decimals = next((d for d, edge in ((2, 9.995), (1, 99.95)) if abs(value) < edge), 0)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if float(value).is_integer() and decimals else text


def interval(name: str, estimate: Estimate) -> str:
    """Write a prediction as its value and, where it has a width, its interval in the same unit."""
    value = figure(name, estimate.value)
    if estimate.low == estimate.high:
        return value
    low, high = figure(name, estimate.low), figure(name, estimate.high)
    if low.split()[1] == high.split()[1]:
        low = low.split()[0]
    return f"{value} ({low} to {high})"


def percent(share: float | None, decimals: int = 1) -> str:
    """Write a share of 1 as percent."""
    return ABSENT if share is None else f"{100 * share:.{decimals}f} %"


def give_or_take(share: float | None, error: float, decimals: int = 2) -> str:
    """Write a share of 1 as percent with its standard error, where that is known (> 0)."""
    if share is None or error == 0:
        return percent(share, decimals)
    return f"{percent(share, decimals)} ± {100 * error:.{decimals}f}"


def points(value: float, decimals: int = 2) -> str:
    """Write a difference of scores, in points."""
    return f"{value:.{decimals}f} points"


def ratio(before: float, after: float) -> str:
    """Write how many times smaller ``after`` is than ``before``."""
    return f"{before / after:.1f}×" if after else ABSENT
