"""Fit the bytes on disk: the weights as packed, and what the container adds for itself and for each layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autocompress.predictors.features import SIZE
from autocompress.predictors.linear import Linear, fit_linear

Array = npt.NDArray[np.float64]

RIDGE = 1e-9
"""Bytes have no noise, so nothing may be shrunk."""


def fit_size(rows: Array, size_bytes: Array) -> Linear:
    """Fit sizes (samples,) to ``rows`` (samples x features)."""
    return fit_linear(rows, size_bytes, SIZE, ridge=RIDGE)
