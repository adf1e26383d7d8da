"""Find when a device was slow: stretches of a run in which its reference kernel, or all that it ran, took longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.profiling.change_points import noise, partition, without_spikes

Array = npt.NDArray[np.float64]
Cause: TypeAlias = Literal["throttling", "neighbour", "unknown"]

SMALLEST_SLOWDOWN = 0.05
"""Stretches that are slower by less are not told from the usual wander of a device."""
SIGNIFICANCE = 3.0
"""Standard errors by which a stretch must exceed the baseline, beyond what the largest of many does by chance."""
WAITED = 0.05
"""Share of the time for which a sample may wait for a processor that other processes hold."""
FASTEST_SHARE = 0.25
"""The baseline is the level that this share of the samples reaches: a device may be slow for most of a run."""
FELL = 0.03
"""Share by which a frequency must fall to be called throttled: governors move it by less."""
HOTTEST_C = 80.0
"""Where boards begin to throttle, in degrees Celsius (Raspberry Pi 3 and 4)."""


@dataclass(frozen=True)
class Conditions:
    """What was known of a device beside a sample; ``None`` where it cannot tell.

    Attributes:
        frequency_ghz: Of the core that ran the sample.
        temperature_c: Of the processor.
        waited_share: Share of the sample's time in which it waited for a processor that others held (0 to 1).
    """

    frequency_ghz: float | None = None
    temperature_c: float | None = None
    waited_share: float | None = None


@dataclass(frozen=True)
class Observation:
    """One sample of a run, of whatever artifact.

    Attributes:
        start_s: When it began, on any clock that all samples share.
        latency_ms: What it took.
        expected_ms: What a robust model of the artifact says that it takes.
        reference_ms: What the reference kernel took beside it. A mean shows a neighbour, a median of many hides it.
        conditions: What else was known.
    """

    start_s: float
    latency_ms: float
    expected_ms: float | None = None
    reference_ms: float | None = None
    conditions: Conditions = Conditions()


@dataclass(frozen=True)
class Episode:
    """A contiguous stretch of a run in which the device was slow.

    Attributes:
        start_s: When its first sample began.
        end_s: When its last sample ended.
        slowdown: How much longer things took, as a share of the usual time (0.4: 40 % longer).
        cause: What the conditions say: the processor was throttled, or another process held it.
        samples: Positions of its samples in the run.
        usual: Medians of the conditions outside all episodes.
        during: Medians of the conditions within, but the highest temperature.
    """

    start_s: float
    end_s: float
    slowdown: float
    cause: Cause
    samples: range
    usual: Conditions = Conditions()
    during: Conditions = Conditions()


def find_episodes(run: Sequence[Observation], *, hottest_c: float = HOTTEST_C) -> tuple[Episode, ...]:
    """Return the episodes of a run in time order; samples outside all of them are clean.

    A sample belongs to an episode if it lies in a stretch whose level is above the baseline, or waited for a processor
    for more than ``WAITED`` of its time. The level is that of the reference kernel; where a sample has none, that of
    the latencies relative to ``expected_ms``; where one has neither, only waiting speaks.

    Args:
        run: Samples in time order.
        hottest_c: Temperature from which the device throttles.
    """
    if not run:
        return ()
    excess = np.maximum(_excess(_levels(run)), 0.0)
    stretch = np.array([_stretch(each.conditions) for each in run])
    slow = (excess > 0) | (stretch > -log(1 - WAITED))
    usual = _typical([each.conditions for each, marked in zip(run, slow, strict=True) if not marked], median)
    return tuple(_episode(run, samples, np.maximum(excess, stretch), usual, hottest_c) for samples in _runs(slow))


def marks(episodes: Sequence[Episode], count: int) -> tuple[bool, ...]:
    """Return for each of ``count`` samples whether it lies in an episode."""
    inside = {position for episode in episodes for position in episode.samples}
    return tuple(position in inside for position in range(count))


def describe(episode: Episode) -> str:
    """Word an episode, e.g. ``slow by 42 % from sample 120 to 171: throttling, 2.4 to 1.8 GHz``."""
    samples = episode.samples
    where = f"at sample {samples[0]}" if len(samples) == 1 else f"from sample {samples[0]} to {samples[-1]}"
    return f"slow by {100 * episode.slowdown:.0f} % {where}: {', '.join(_evidence(episode))}"


def smallest_detected(spread: float, samples: int, among: int) -> float:
    """Return the slow-down (a share) that an episode of ``samples`` among ``among`` must exceed to be found.

    Args:
        spread: Relative noise of the series that shows it, as a standard deviation.
        samples: Length of the episode.
        among: Samples of the run.
    """
    return max(SMALLEST_SLOWDOWN, exp(_threshold(spread, samples, among)) - 1)


def _levels(run: Sequence[Observation]) -> Array | None:
    references = [each.reference_ms for each in run if each.reference_ms is not None]
    if len(references) == len(run):
        return np.asarray(np.log(references))
    ratios = [each.latency_ms / each.expected_ms for each in run if each.expected_ms is not None]
    return np.asarray(np.log(ratios)) if len(ratios) == len(run) else None


def _excess(series: Array | None) -> Array:
    """Return how far the stretch of each sample lies above the baseline, in logarithms; 0 where that may be chance."""
    if series is None:
        return np.zeros(1)
    spread = noise(series)
    stretches = partition(without_spikes(series, spread), spread)
    levels = np.concatenate([np.full(len(each), np.median(series[each])) for each in stretches])
    above = levels - float(np.quantile(levels, FASTEST_SHARE, method="lower"))
    lengths = np.concatenate([np.full(len(each), len(each)) for each in stretches])
    needed = [max(log(1 + SMALLEST_SLOWDOWN), _threshold(spread, each, len(series))) for each in lengths]
    return np.where(above > needed, above, 0.0)


def _threshold(spread: float, samples: int, among: int) -> float:
    # The largest of n normal values is about sqrt(2 log n); among / samples stretches are so long.
    chance = sqrt(2 * log(max(among / samples, 1.0)))
    return (SIGNIFICANCE + chance) * spread / sqrt(samples)


def _stretch(conditions: Conditions) -> float:
    """Return the logarithm of the factor by which waiting made a sample longer."""
    return -log(1 - min(conditions.waited_share or 0.0, 0.99))


def _runs(slow: npt.NDArray[np.bool_]) -> list[range]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], slow.astype(np.int8), [0]])))
    return [range(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _episode(run: Sequence[Observation], samples: range, excess: Array, usual: Conditions, hottest_c: float) -> Episode:
    inside = [run[position] for position in samples]
    during = _typical([each.conditions for each in inside], max)
    return Episode(
        start_s=inside[0].start_s,
        end_s=inside[-1].start_s + inside[-1].latency_ms / 1e3,
        slowdown=exp(float(np.median(excess[list(samples)]))) - 1,
        cause=_cause(usual, during, hottest_c),
        samples=samples,
        usual=usual,
        during=during,
    )


def _cause(usual: Conditions, during: Conditions, hottest_c: float) -> Cause:
    """Name the cause that explains more of the time; heat alone explains only what nothing else does."""
    fell = 0.0
    if usual.frequency_ghz and during.frequency_ghz:
        fell = log(usual.frequency_ghz / during.frequency_ghz)
    waited = _stretch(during) - _stretch(usual)
    if waited > max(fell, -log(1 - WAITED)):
        return "neighbour"
    hot = during.temperature_c is not None and during.temperature_c > hottest_c
    return "throttling" if hot or fell > -log(1 - FELL) else "unknown"


def _typical(conditions: Sequence[Conditions], temperature: Callable[[list[float]], float]) -> Conditions:
    frequencies = [each.frequency_ghz for each in conditions if each.frequency_ghz is not None]
    temperatures = [each.temperature_c for each in conditions if each.temperature_c is not None]
    waits = [each.waited_share for each in conditions if each.waited_share is not None]
    return Conditions(
        frequency_ghz=median(frequencies) if frequencies else None,
        temperature_c=temperature(temperatures) if temperatures else None,
        waited_share=median(waits) if waits else None,
    )


def _evidence(episode: Episode) -> list[str]:
    usual, during = episode.usual, episode.during
    if episode.cause == "unknown":
        return ["cause unknown"]
    if episode.cause == "neighbour":
        return ["neighbour", f"{100 * (during.waited_share or 0.0):.0f} % of the time spent waiting"]
    known = ["throttling"]
    if usual.frequency_ghz and during.frequency_ghz and during.frequency_ghz < usual.frequency_ghz:
        known.append(f"{usual.frequency_ghz:.1f} to {during.frequency_ghz:.1f} GHz")
    return known if during.temperature_c is None else [*known, f"up to {during.temperature_c:.0f} °C"]
