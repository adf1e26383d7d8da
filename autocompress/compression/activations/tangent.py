"""Levels along a tangent for post-softmax maps: fine near 0, where most entries are, and near the largest values.

DopQ-ViT (Yang et al. 2024, arXiv 2408.03291) names this property of its TanQ and says that it uses a tangent. Its
formula could not be read: that of this file, a tangent centred inside the range, and its search are reconstructions. A
tangent that is fine at one end alone lacks the property.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from autocompress.compression.activations.attention_maps import AttentionMap, least_error, tops
from autocompress.errors import ConfigError

CENTRES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
REACHES = (0.6, 0.75, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995)
"""Angles of the far end that are tried, as shares of pi / 2: the tangent is vertical at 1."""


@dataclass(frozen=True)
class Tangent:
    """With u = clip(x / top, 0, 1) and t(u) = tan(steepness * (u - centre)): codes are even steps from t(0) to t(1).

    0 and ``top`` are levels. A larger steepness gives both ends more levels, a larger centre gives 0 more of them.

    Attributes:
        bits: Width of a code.
        top: The largest value.
        steepness: a, above 0.
        centre: c, where levels are the sparsest, as a share of ``top``; a * max(c, 1 - c) < pi / 2.

    Raises:
        ConfigError: The tangent has a pole inside the range.
    """

    simulated: ClassVar[bool] = True
    bits: int
    top: float
    steepness: float
    centre: float

    def __post_init__(self) -> None:
        """Refuse what is no increasing function."""
        if not 0 < self.steepness * max(self.centre, 1.0 - self.centre) < math.pi / 2:
            raise ConfigError(
                f"A tangent of steepness {self.steepness:g} around {self.centre:g} does not rise from 0 to 1.",
                right="steepness * max(centre, 1 - centre) is above 0 and below pi / 2.",
                next_step="Lower the steepness, or let tangent.fit choose both.",
            )

    @property
    def _ends(self) -> tuple[float, float]:
        return math.tan(-self.steepness * self.centre), math.tan(self.steepness * (1.0 - self.centre))

    @cached_property
    def levels(self) -> Tensor:
        """What each code stands for, rising: a table of 2^bits entries, all that an engine would need."""
        low, high = self._ends
        even = torch.linspace(low, high, 2**self.bits, dtype=torch.float64)
        levels = self.top * (self.centre + torch.atan(even) / self.steepness)
        levels[0], levels[-1] = 0.0, self.top
        return levels.float()

    def quantize(self, x: Tensor) -> Tensor:
        """Return the codes (int64) of probabilities of any shape."""
        low, high = self._ends
        t = torch.tan(self.steepness * ((x / self.top).clamp(0.0, 1.0) - self.centre))
        last = 2**self.bits - 1
        return torch.round(last * (t - low) / (high - low)).clamp(0, last).long()

    def dequantize(self, codes: Tensor) -> Tensor:
        """Look codes up in ``levels``."""
        return self.levels[codes]


def fit(maps: Sequence[AttentionMap], bits: int) -> Tangent:
    """Return the tangent of least ``squared_error`` on a grid of largest values, steepnesses and centres."""
    return least_error((Tangent(bits, top, a, c) for top in tops(maps) for a, c in _grid()), maps)


def _grid() -> Iterator[tuple[float, float]]:
    for centre in CENTRES:
        for reach in REACHES:
            yield reach * math.pi / 2 / max(centre, 1.0 - centre), centre
