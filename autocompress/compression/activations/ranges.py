"""Ranges of activations that are fixed before a model runs, from what calibration documents hold.

Two passes over what a linear reads: the extremes of each channel, then a histogram between the extremes of all. Padding
does not count, labels are not read. A range always holds 0, which is a level of its own.

Smoothing (SmoothQuant, Xiao et al. 2023, equation 4) divides each channel of the activations by a scale and multiplies
the weights that read it. The division is a part of the quantizer, so that no norm before it is touched: it works
wherever a linear stands, in post-norm models too, whose norms also feed the residual stream. The paper smooths what
norms give; elsewhere, above all behind GELU, it may do harm. So, ours to add, a range is smoothed only where what its
linears give on the documents comes nearer to the floats by that; else its scales are 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from autocompress.compression.activations.smoothing import smoothing_scales
from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.layer_inputs import LayerInputs
from autocompress.errors import ConfigError
from autocompress.models.quantized import StaticQuantizer
from autocompress.plan import RangeKind

LEVELS = 255
"""Steps of uint8."""
BINS = 8192
"""Of a histogram, between the extremes."""
HELD = 0.9999
"""Share of the values that a ``percentile`` range holds; at most one half of the others lies at each side of it."""
SHRINK = tuple(0.9**power for power in range(24))
"""Ends of ranges that ``mse`` tries, as shares of the extremes."""


@dataclass(frozen=True)
class Fixing:
    """How ranges are fixed.

    Attributes:
        kind: ``minmax``: all values. ``percentile``: all but the rarest (``HELD``). ``mse``: the range of least squared
            error, rounding and clipping together.
        smoothing: The exponent alpha of SmoothQuant, 0 to 1; ``None``: channels are not smoothed.
    """

    kind: RangeKind
    smoothing: float | None = None


@dataclass(frozen=True, eq=False)
class FixedRange:
    """The range of what some linears read.

    Attributes:
        step: Between two levels.
        zero: The level that stands for 0.
        scales: What channels are divided by before, (channels,), or ``None``.
    """

    step: float
    zero: int
    scales: Tensor | None = None

    def quantizer(self) -> StaticQuantizer:
        """Return a quantizer of this range."""
        step, zero = torch.tensor([self.step]), torch.tensor([self.zero], dtype=torch.uint8)
        return StaticQuantizer(step, zero, None if self.scales is None else 1.0 / (step * self.scales))

    def readers(self, weight: Tensor) -> Tensor:
        """Return weights (outputs x channels) that make up for the scales."""
        return weight if self.scales is None else weight * self.scales


def fix_range(inputs: LayerInputs, path: str, weights: Sequence[Tensor], fixing: Fixing) -> FixedRange:
    """Return the range of what the module at ``path`` reads.

    Args:
        inputs: Documents before the layer.
        path: Of one of the linears that read the same.
        weights: Of all of them, each (outputs x channels).
        fixing: How.

    Raises:
        ConfigError: Some of it is no number; or ``smoothing`` is outside 0 to 1.
    """
    parts = [x[real] for x, real in inputs.of(path)]  # Kept: each pass over the documents runs the layer.
    low, high = channel_extremes(parts)
    check_finite(low, high)
    plain = _fixed(parts, low, high, None, fixing.kind)
    if fixing.smoothing is None:
        return plain
    largest = torch.maximum(low.abs(), high.abs())
    # A channel that calibration did not see move has no magnitude to be smoothed by.
    scales = torch.where(largest > 0, smoothing_scales(largest, weights, fixing.smoothing), 1.0)
    smoothed = _fixed(parts, low, high, scales, fixing.kind)
    ways = smoothed, replace(plain, scales=torch.ones_like(scales))
    errors = output_errors(ways, torch.cat(list(weights)), parts)
    return ways[int(errors.argmin())]


def _fixed(parts: Sequence[Tensor], low: Tensor, high: Tensor, scales: Tensor | None, kind: RangeKind) -> FixedRange:
    if scales is not None:
        low, high = low / scales, high / scales
    ends = min(0.0, float(low.min())), max(0.0, float(high.max()))
    if kind != "minmax" and ends[0] < ends[1]:
        counts = histogram((part if scales is None else part / scales for part in parts), *ends)
        ends = (percentile_range if kind == "percentile" else least_squares_range)(counts, *ends)
    return FixedRange(*levels_of(*ends), scales)


def output_errors(ways: Sequence[FixedRange], weight: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """Return the squared error of what linears give in each of the ``ways``, summed over all parts (rows x channels).

    Args:
        ways: Ranges, with scales or without.
        weight: (outputs x channels), rounded to the nearest of 8 bits in each way.
        parts: What the linears read.
    """
    read = [way.readers(weight) for way in ways]
    grids = [grid_of(values, 8) for values in read]
    rounded = [grid.values(grid.levels(values)).mT for grid, values in zip(grids, read, strict=True)]
    quantizers, total = [way.quantizer() for way in ways], torch.zeros(len(ways), dtype=torch.float64)
    for part in parts:
        expected = part @ weight.mT
        found = [reads(part) * reads.step @ values for reads, values in zip(quantizers, rounded, strict=True)]
        total += torch.stack([(each - expected).square().sum().double() for each in found])
    return total


def check_finite(*tensors: Tensor) -> None:
    """Let weights or activations through, or raise.

    Raises:
        ConfigError: A value is infinite or no number.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ConfigError(
            "Ranges are to be fixed of a model whose weights or activations are infinite or no numbers.",
            right="All of them are finite, on calibration documents too.",
            next_step="Train the model again at a lower rate, or leave its activations dynamic to see where it breaks.",
        )


def levels_of(low: float, high: float) -> tuple[float, int]:
    """Return step and zero point of a range that holds 0; of a range of nothing else, step 1."""
    step = (high - low) / LEVELS or 1.0
    return step, min(max(round(-low / step), 0), LEVELS)


def channel_extremes(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of each channel, over all rows of parts (rows x channels)."""
    pairs = ((part.amin(0), part.amax(0)) for part in parts if len(part))
    return reduce(lambda one, two: (torch.minimum(one[0], two[0]), torch.maximum(one[1], two[1])), pairs)


def histogram(parts: Iterable[Tensor], low: float, high: float) -> Tensor:
    """Return how many values of all parts lie in each of ``BINS`` equal parts of the range, float64."""
    total = torch.zeros(BINS, dtype=torch.float64)
    for part in parts:
        # The extremes themselves may be off by a rounding of the division by scales.
        total += torch.histc(part.clamp(low, high), BINS, low, high)
    return total


def percentile_range(counts: Tensor, low: float, high: float) -> tuple[float, float]:
    """Return the narrowest range, in whole bins, that leaves (1 - ``HELD``) / 2 of the values at each side, at most.

    Args:
        counts: Of the values in equal parts of the range from ``low`` to ``high``.
        low: At most 0.
        high: At least 0.
    """
    width, spare = (high - low) / len(counts), (1.0 - HELD) / 2.0 * float(counts.sum())
    below, above = (int((side.cumsum(0) <= spare).sum()) for side in (counts, counts.flip(0)))
    return min(0.0, low + below * width), max(0.0, high - above * width)


def least_squares_range(counts: Tensor, low: float, high: float) -> tuple[float, float]:
    """Return the range of least squared error among those whose ends are ``SHRINK`` of ``low`` and of ``high``.

    Each value is taken to lie in the middle of its bin; what lies beyond an end is clipped to it. Of equals the widest.

    Args:
        counts: As of ``percentile_range``.
        low: At most 0.
        high: At least 0.
    """
    width = (high - low) / len(counts)
    values = low + width * (torch.arange(len(counts), dtype=torch.float64) + 0.5)
    best, least = (low, high), float("inf")
    for left in SHRINK if low < 0 else SHRINK[:1]:
        for right in SHRINK if high > 0 else SHRINK[:1]:
            step, zero = levels_of(left * low, right * high)
            rounded = torch.round(values / step).clamp(-zero, LEVELS - zero) * step
            error = float((counts * (rounded - values).square()).sum())
            if error < least:
                best, least = (left * low, right * high), error
    return best
