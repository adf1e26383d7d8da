"""One scale and zero point for all channels, from those of each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from autocompress.compression.activations.affine import Affine


def mosf(values: Tensor) -> Tensor:
    """Return the value of least mean absolute deviation from ``values`` (channels,): their median.

    DopQ-ViT (Yang et al. 2024): the second version of the paper reads MOSF as "median as the optimal scaling factor",
    the third as guided by the mean absolute deviation, which the median minimises. Of two middle values, their mean.
    Less than half of the channels, however far off, leave it among the others; they move a mean at will.
    """
    return values.quantile(0.5)


def shared_median(channels: Affine) -> Affine:
    """Return MOSF of the scales and, rounded, of the zero points; that it is used for zero points is a reconstruction.

    Once folded (``folding.reparameterize``), every shared scale gives the same codes: what the whole zero point gains
    over a fractional mean is that they are exactly those of each channel.
    """
    return Affine(channels.bits, mosf(channels.scale).reshape(1), mosf(channels.zero).round().reshape(1))


def shared_mean(channels: Affine) -> Affine:
    """Return the mean scale and the mean zero point, a fraction, as RepQ-ViT does (Li et al. 2023, official code)."""
    return Affine(channels.bits, channels.scale.mean().reshape(1), channels.zero.mean().reshape(1))


SHARED: Mapping[str, Callable[[Affine], Affine]] = {"mean": shared_mean, "mosf": shared_median}
"""By name: each channel's quantizer to the layer's."""
