"""The levels that few bits have, and the scales that a weight is stored with: fixed before any rounding is chosen.

8 bits: levels -127..127, one scale an output channel. 4, 3 and 2 bits: levels -8..7, -4..3 and -2..1, one scale a group
of input channels, which may be negative, and as may be one zero point, a level. 8 bits in groups: -128..127, likewise
without zero points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.shape import WEIGHT_GROUP, Bits, WeightGrid

GridBits: TypeAlias = Literal[2, 3, 4, 8]

CLIP_RATIOS = tuple(1.0 - 0.05 * step for step in range(8))
TWO_BIT_RATIOS = tuple(sign * 0.1 * step for step in range(2, 11) for sign in (1, -1))
"""Scales tried at 2 bits, as shares of a group's largest magnitude: at 1 both ends reach it, at 0.5 only level -2."""


END_RATIOS = tuple(1.0 - 0.1 * step for step in range(4))
"""Ends tried where there are zero points, as shares of a group's least and greatest value."""
TWO_BIT_END_RATIOS = tuple(1.0 - 0.2 * step for step in range(5))


@dataclass(frozen=True)
class Grid:
    """What each weight of a linear may become: a level in ``low`` to ``high``, less the zero point, times its scale.

    Attributes:
        low, high: Ends of the levels.
        scale: (rows,) where a row has one, or (rows x groups) where input channels have one in groups.
        zero_points: (rows x groups) int8, or ``None``: all are 0.
        group: Input channels of a group.
    """

    low: int
    high: int
    scale: Tensor
    zero_points: Tensor | None = None
    group: int = WEIGHT_GROUP

    def scales(self, channels: int) -> Tensor:
        """Return the scale of each weight, (rows x channels) or (rows x 1)."""
        return self.scale[:, None] if self.scale.dim() == 1 else self._spread(self.scale, channels)

    def zeros(self, channels: int) -> Tensor:
        """Return the zero point of each weight, (rows x channels), or (1 x 1) where all are 0."""
        if self.zero_points is None:
            return self.scale.new_zeros(1, 1)
        return self._spread(self.zero_points.to(self.scale), channels)

    def _spread(self, each: Tensor, channels: int) -> Tensor:
        return each.repeat_interleave(self.group, dim=1)[:, :channels]

    def levels(self, weight: Tensor) -> Tensor:
        """Return the nearest levels (rows x channels) as int8."""
        channels = weight.shape[1]
        nearest = torch.round(weight / self.scales(channels)) + self.zeros(channels)
        return nearest.clamp(self.low, self.high).to(torch.int8)

    def values(self, levels: Tensor) -> Tensor:
        """Return the weights (rows x channels) that ``levels`` stand for."""
        return (levels - self.zeros(levels.shape[1])) * self.scales(levels.shape[1])

    def chunks(self, count: int) -> list[Grid]:
        """Return the grids of ``count`` equal blocks of rows."""
        scales = self.scale.chunk(count)
        zeros = [None] * count if self.zero_points is None else self.zero_points.chunk(count)
        return [replace(self, scale=scale, zero_points=zero) for scale, zero in zip(scales, zeros, strict=True)]


def ends_of(bits: int, *, grouped: bool = False) -> tuple[int, int]:
    """Return the lowest and the highest level of 8 bits or fewer; 8 bits have -128 only where they are ``grouped``."""
    half = 1 << (bits - 1)
    return (1 - half if bits == 8 and not grouped else -half), half - 1


def quantize_rows(weight: Tensor, bits: Bits, row_scale_dim: int = 0) -> tuple[Tensor, Tensor | None]:
    """Round the rows of ``weight`` (rows x channels) to the nearest levels.

    Args:
        weight: Floats.
        bits: 16: no scale. 8: one scale a row. 4, 3 and 2: one scale a row and group of 32 channels.
        row_scale_dim: At 8 bits, 0 gives scales of shape (rows,), 1 of (rows x 1).

    Returns:
        (levels as int8, scales as f32), or (values as bfloat16, None) at 16 bits.
    """
    if bits == 16:
        return weight.to(torch.bfloat16), None
    assert bits != 32
    grid = grid_of(weight, bits)
    return grid.levels(weight), grid.scale[:, None] if row_scale_dim and bits == 8 else grid.scale


def grid_of(weight: Tensor, bits: GridBits, *, stored: WeightGrid | None = None, whole_rows: bool = False) -> Grid:
    """Return the grid on which ``weight`` (rows x channels) is rounded to nearest with the least squared error.

    At 8 bits a row's scale is that of its largest magnitude.

    Args:
        weight: Floats.
        bits: Of a level.
        stored: The groups; ``None``: none at 8 bits, the usual ones below.
        whole_rows: One scale a row at every width, as in many papers; nothing stores that below 8 bits.
    """
    if bits == 8 and stored is None:
        return Grid(*ends_of(8), weight.abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / 127.0)
    stored, (low, high) = stored or WeightGrid(), ends_of(bits, grouped=True)
    group = weight.shape[1] if whole_rows else stored.group
    groups = nn.functional.pad(weight, (0, -weight.shape[1] % group)).reshape(len(weight), -1, group)
    scale = _two_bit_scale(groups) if bits == 2 else _least_squares_scale(groups, low)
    if whole_rows:
        return Grid(low, high, scale[:, 0, 0])
    if not stored.zero_points:
        return Grid(low, high, scale[..., 0].contiguous(), group=group)
    scale, zeros = _with_zero_points(groups, scale, low, high)
    return Grid(low, high, scale[..., 0].contiguous(), zeros[..., 0].to(torch.int8), group)


def _least_squares_scale(values: Tensor, low: int) -> Tensor:
    """Return, for each group (last dimension), the clipped range / ``low`` of least squared rounding error.

    The range ends at ``low`` and -low - 1: the sign of the scale is chosen so that the largest magnitude falls on
    ``low``.
    """
    extreme = values.gather(-1, values.abs().argmax(-1, keepdim=True))
    full = torch.where(extreme == 0, torch.full_like(extreme, torch.finfo(values.dtype).tiny), extreme / low)
    best, least = full, torch.full_like(full, torch.inf)
    for ratio in CLIP_RATIOS:
        scale = full * ratio
        rounded = torch.round(values / scale).clamp(low, -low - 1) * scale
        error = ((rounded - values) ** 2).sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _two_bit_scale(values: Tensor) -> Tensor:
    """Return, for each group (last dimension), the scale of least squared error with levels -2..1.

    Each scale of ``TWO_BIT_RATIOS`` gives levels; the scale that fits these best, sum(levels * values) / sum(levels^2),
    is what is tried (one step of Lloyd 1982). A group of zeros gets a scale that is tiny and not zero.
    """
    largest = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    best, least = largest, torch.full_like(largest, torch.inf)
    for ratio in TWO_BIT_RATIOS:
        levels = torch.round(values / (largest * ratio)).clamp(-2, 1)
        scale = (levels * values).sum(-1, keepdim=True) / levels.square().sum(-1, keepdim=True)
        scale = torch.where(scale.isfinite() & (scale != 0), scale, largest)
        error = ((torch.round(values / scale).clamp(-2, 1) * scale - values) ** 2).sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _with_zero_points(values: Tensor, symmetric: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return, for each group (last dimension), the scale and the zero point of least squared rounding error.

    Both ends of the range are tried, each as shares of where the group ends: the range gives the zero point and, by way
    of levels, the scale that fits these best, as ``_two_bit_scale`` has it. Where nothing is better than the
    ``symmetric`` scale, that stays, with the zero point 0.
    """
    tiny = torch.finfo(values.dtype).tiny
    bottom, top = values.amin(-1, keepdim=True).clamp(max=0.0), values.amax(-1, keepdim=True).clamp(min=0.0)
    best, zeros = symmetric, torch.zeros_like(symmetric)
    least = ((torch.round(values / best).clamp(low, high) * best - values) ** 2).sum(-1, keepdim=True)
    for left, right in product(END_RATIOS if high > 1 else TWO_BIT_END_RATIOS, repeat=2):
        step = ((right * top - left * bottom) / (high - low)).clamp(min=tiny)
        zero = (low - torch.round(left * bottom / step)).clamp(low, high)
        levels = (torch.round(values / step) + zero).clamp(low, high) - zero
        scale = (levels * values).sum(-1, keepdim=True) / levels.square().sum(-1, keepdim=True)
        scale = torch.where(scale.isfinite() & (scale != 0), scale, step)
        levels = (torch.round(values / scale) + zero).clamp(low, high) - zero
        error = ((levels * scale - values) ** 2).sum(-1, keepdim=True)
        better = error < least
        best, zeros, least = torch.where(better, scale, best), torch.where(better, zero, zeros), error.minimum(least)
    return best, zeros
