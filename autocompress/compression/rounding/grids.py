"""The levels that few bits have, and the scales that a weight is stored with: fixed before any rounding is chosen.

8 bits: levels -127..127, one scale an output channel. 4, 3 and 2 bits: levels -8..7, -4..3 and -2..1, one scale a group
of 32 input channels, which may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.shape import WEIGHT_GROUP, Bits

GridBits: TypeAlias = Literal[2, 3, 4, 8]

CLIP_RATIOS = tuple(1.0 - 0.05 * step for step in range(8))
TWO_BIT_RATIOS = tuple(sign * 0.1 * step for step in range(2, 11) for sign in (1, -1))
"""Scales tried at 2 bits, as shares of a group's largest magnitude: at 1 both ends reach it, at 0.5 only level -2."""


@dataclass(frozen=True)
class Grid:
    """What each weight of a linear may become: a level in ``low`` to ``high`` times its scale.

    Attributes:
        low, high: Ends of the levels.
        scale: (rows,) where a row has one, or (rows x groups) where 32 input channels have.
    """

    low: int
    high: int
    scale: Tensor

    def scales(self, channels: int) -> Tensor:
        """Return the scale of each weight, (rows x channels) or (rows x 1)."""
        if self.scale.dim() == 1:
            return self.scale[:, None]
        return self.scale.repeat_interleave(WEIGHT_GROUP, dim=1)[:, :channels]

    def levels(self, weight: Tensor) -> Tensor:
        """Return the nearest levels (rows x channels) as int8."""
        nearest = torch.round(weight / self.scales(weight.shape[1])).clamp(self.low, self.high)
        return nearest.to(torch.int8)

    def values(self, levels: Tensor) -> Tensor:
        """Return the weights (rows x channels) that ``levels`` stand for."""
        return levels * self.scales(levels.shape[1])

    def chunks(self, count: int) -> list[Grid]:
        """Return the grids of ``count`` equal blocks of rows."""
        return [replace(self, scale=scale) for scale in self.scale.chunk(count)]


def ends_of(bits: int) -> tuple[int, int]:
    """Return the lowest and the highest level of 8 bits or fewer."""
    half = 1 << (bits - 1)
    return (1 - half if bits == 8 else -half), half - 1


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


def grid_of(weight: Tensor, bits: GridBits, *, whole_rows: bool = False) -> Grid:
    """Return the grid on which ``weight`` (rows x channels) is rounded to nearest with the least squared error.

    At 8 bits the scale is that of the largest magnitude of a row.

    Args:
        weight: Floats.
        bits: Of a level.
        whole_rows: One scale a row at every width, as in many papers; nothing stores that below 8 bits.
    """
    low, high = ends_of(bits)
    if bits == 8:
        return Grid(low, high, weight.abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / 127.0)
    group = weight.shape[1] if whole_rows else WEIGHT_GROUP
    groups = nn.functional.pad(weight, (0, -weight.shape[1] % group)).reshape(len(weight), -1, group)
    scale = _two_bit_scale(groups) if bits == 2 else _least_squares_scale(groups, low)
    return Grid(low, high, scale[:, 0, 0] if whole_rows else scale[..., 0].contiguous())


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
