"""Uniform levels with a zero point, for a whole tensor or for each channel of it, simulated in floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

QUANTILES = (0.999, 0.9999, 0.99999)
"""Clipped ranges that are tried; the other end is 1 less the quantile (RepQ-ViT, Li et al. 2023, official code)."""
FLAT = 1e-4
"""A range narrower than this share of its magnitude is widened to 0, or the zero point would outgrow f32."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x_hat = scale * (code - zero), codes 0 to 2^bits - 1.

    Attributes:
        bits: Width of a code.
        scale: (channels,), or (1,) for all.
        zero: Of the same shape. Integers but for the mean of RepQ-ViT: then codes are no integers either, and
            the clamped ends make 2^bits + 1 of them, as in its official code.
    """

    simulated: ClassVar[bool] = True
    bits: int
    scale: Tensor
    zero: Tensor

    def quantize(self, x: Tensor) -> Tensor:
        """Return the codes of ``x`` (... x channels), clamp(round(x / scale) + zero), as floats."""
        return (torch.round(x / self.scale) + self.zero).clamp(0, 2**self.bits - 1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Return what codes (... x channels) stand for."""
        return (codes - self.zero) * self.scale

    def rounded(self, x: Tensor) -> Tensor:
        """Return the nearest values to ``x`` that have a code."""
        return self.dequantize(self.quantize(x))


@torch.no_grad()
def fit_channels(x: Tensor, bits: int) -> Affine:
    """Fit each channel of ``x`` (... x channels): asymmetric, of the clipped ranges of ``QUANTILES`` the least wrong.

    Wrong by the squared error. Zero points are integers. A constant channel gets levels that hold it and 0 exactly.
    The rows of a weight are the channels of its transpose.
    """
    rows = x.detach().reshape(-1, x.shape[-1])
    ranges = [torch.from_numpy(np.quantile(rows.numpy(), (1 - q, q), axis=0)).to(x) for q in QUANTILES]
    tried = [_between(low, high, bits) for low, high in ranges]
    best = torch.stack([(each.rounded(rows) - rows).square().sum(0) for each in tried]).argmin(0, keepdim=True)
    scale = torch.stack([each.scale for each in tried]).gather(0, best)[0]
    return Affine(bits, scale, torch.stack([each.zero for each in tried]).gather(0, best)[0])


def fit_tensor(x: Tensor, bits: int) -> Affine:
    """Fit one scale and zero point to all of ``x``, in the same way."""
    return fit_channels(x.reshape(-1, 1), bits)


def _between(low: Tensor, high: Tensor, bits: int) -> Affine:
    flat = high - low <= FLAT * torch.maximum(low.abs(), high.abs())
    low, high = torch.where(flat, low.clamp(max=0), low), torch.where(flat, high.clamp(min=0), high)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return Affine(bits, scale, torch.round(-low / scale))
