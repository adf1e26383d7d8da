"""Fit the peak resident memory of a fresh process that runs the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autocompress.predictors.features import MEMORY
from autocompress.predictors.linear import Linear, fit_linear

Array = npt.NDArray[np.float64]

RIDGE = 1e-5


def fit_memory(rows: Array, peak_bytes: Array, base_bytes: Array) -> Linear:
    """Fit peaks (samples,): the process without a model, the engine, and multiples of weights and activations.

    Args:
        rows: (samples x features).
        peak_bytes: Peak resident memory.
        base_bytes: Resident memory before the artifact was loaded; its median is taken as it is.
    """
    return fit_linear(rows, peak_bytes, MEMORY, ridge=RIDGE, offset=float(np.median(base_bytes)))
