"""SmoothQuant: outlier channels of activations are made smaller, and the weights that read them larger."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autocompress.compression.activations.folding import fold
from autocompress.compression.activations.norm_sites import NormSite
from autocompress.errors import ConfigError

SMALLEST = 1e-5
"""Of weights' largest magnitudes and of scales, as in the official code."""


def smoothing_scales(largest: Tensor, weights: Sequence[Tensor], alpha: float) -> Tensor:
    """Return s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) (Xiao et al. 2023).

    Args:
        largest: max|X_j| over calibration data, (channels,).
        weights: Of all linears that read X, each (outputs x channels); the maximum is over all of them.
        alpha: 0 leaves all difficulty to the activations' rounding that the weights had, 1 the other way round: at 1
            every channel of the activations ends at magnitude 1, at 0 every column of the weights.

    Raises:
        ConfigError: alpha is outside 0 to 1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(
            f"alpha is {alpha:g}.",
            right="It says how much of the difficulty moves from activations to weights: 0 to 1.",
            next_step="Take 0.5, or up to 0.85 where the activations' outliers are large.",
        )
    columns = torch.stack([weight.detach().abs().amax(0) for weight in weights]).amax(0).clamp(min=SMALLEST)
    return (largest.pow(alpha) / columns.pow(1.0 - alpha)).clamp(min=SMALLEST)


def smooth(site: NormSite, largest: Tensor, alpha: float = 0.5) -> Tensor:
    """Fold smoothing scales into a norm and the linears that read it, in place, and return them (channels,).

    Raises:
        ConfigError: As in ``smoothing_scales``.
        UnsupportedError: As in ``folding.fold``: in post-norm models the residual stream reads the norm too.
    """
    scales = smoothing_scales(largest, [linear.weight for linear in site.readers], alpha)
    fold(site, scales)
    return scales
