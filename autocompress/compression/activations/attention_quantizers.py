"""The table of quantizers of post-softmax maps, each fitted to calibration maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from autocompress.compression.activations import tangent
from autocompress.compression.activations.affine import Affine
from autocompress.compression.activations.attention_maps import AttentionMap, AttentionQuantizer, least_error, tops
from autocompress.compression.activations.logarithm import fit_adalog, fit_log2, fit_log_sqrt2


def fit_uniform(maps: Sequence[AttentionMap], bits: int) -> Affine:
    """Fit the largest value of even levels from 0."""
    scales = (torch.tensor([top / (2**bits - 1)]) for top in tops(maps))
    return least_error((Affine(bits, scale, torch.zeros(1)) for scale in scales), maps)


ATTENTION_QUANTIZERS: Mapping[str, Callable[[Sequence[AttentionMap], int], AttentionQuantizer]] = {
    "uniform": fit_uniform,
    "log2": fit_log2,
    "log_sqrt2": fit_log_sqrt2,
    "adalog": fit_adalog,
    "tanq": tangent.fit,
}
"""By name: (calibration maps, bits) to the quantizer of least ``squared_error``."""
