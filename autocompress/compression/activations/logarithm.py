"""Logarithmic levels for post-softmax maps: log2, log-sqrt2 (RepQ-ViT) and a searched base (AdaLog)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from autocompress.compression.activations.attention_maps import AttentionMap, least_error, tops

ADALOG_DENOMINATOR = 37
ADALOG_NUMERATORS = range(10, 75)
"""Bases 2^(10/37) = 1.2 to 2^(74/37) = 4: both ends are beyond what maps choose at 3 to 6 bits."""


@dataclass(frozen=True)
class Logarithm:
    """x_hat = top * base^-code, and 0 for the last code.

    RepQ-ViT (Li et al. 2023) writes the levels of base sqrt(2) as top * 2^-ceil(q / 2) * (sqrt(2) if q is odd else 1),
    which is top * 2^(-q / 2). Its official code clamps to 2^bits - 1 and then sets what lies beyond to 0: a value more
    than bits can tell apart, which is ``spare_zero``. Without it the last code is the 0.

    Attributes:
        bits: Width of a code.
        top: The largest value, delta of the paper.
        step: log2(base): 1 for log2, 1/2 for log-sqrt2, j/37 for AdaLog (Wu et al. 2024).
        spare_zero: Whether 0 is a code beyond those of ``bits``.
    """

    simulated: ClassVar[bool] = True
    bits: int
    top: float
    step: float
    spare_zero: bool = False

    @cached_property
    def levels(self) -> Tensor:
        """What each code stands for, falling."""
        powers = torch.arange(2**self.bits - 1 + self.spare_zero, dtype=torch.float64)
        return torch.cat([self.top * 2.0 ** (-self.step * powers), torch.zeros(1, dtype=torch.float64)]).float()

    def quantize(self, x: Tensor) -> Tensor:
        """Return clamp(round(-log_base(x / top))) (int64) of probabilities of any shape."""
        return torch.round(torch.log2(x / self.top) / -self.step).clamp(0, len(self.levels) - 1).long()

    def dequantize(self, codes: Tensor) -> Tensor:
        """Look codes up in ``levels``."""
        return self.levels[codes]


def fit_log2(maps: Sequence[AttentionMap], bits: int) -> Logarithm:
    """Fit the largest value of levels that halve."""
    return _fit(maps, bits, (1.0,))


def fit_log_sqrt2(maps: Sequence[AttentionMap], bits: int) -> Logarithm:
    """Fit the largest value of levels that fall by sqrt(2)."""
    return _fit(maps, bits, (0.5,))


def fit_adalog(maps: Sequence[AttentionMap], bits: int) -> Logarithm:
    """Fit the largest value and the base 2^(j/37).

    AdaLog's form of the base; the search is ours, every base with every range (theirs goes from coarse to fine).
    """
    return _fit(maps, bits, [numerator / ADALOG_DENOMINATOR for numerator in ADALOG_NUMERATORS])


def _fit(maps: Sequence[AttentionMap], bits: int, steps: Sequence[float]) -> Logarithm:
    return least_error((Logarithm(bits, top, step) for top in tops(maps) for step in steps), maps)
