"""Fit the time of one inference: its median, and its 95th percentile as a multiple of the median."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autocompress.predictors.features import LATENCY
from autocompress.predictors.linear import Linear, describe, fit_linear

Array = npt.NDArray[np.float64]

RIDGE = 1e-3
"""Small beside one sample's squared error: it only shares out time between columns that grow together."""


def fit_median(rows: Array, p50_ms: Array) -> Linear:
    """Fit medians (samples,), in milliseconds, to ``rows`` (samples x features)."""
    return fit_linear(rows, p50_ms, LATENCY, ridge=RIDGE)


def fit_tail(rows: Array, p50_ms: Array, p95_ms: Array, medians: Linear) -> Linear:
    """Fit 95th percentiles (samples,), in milliseconds: ``medians`` times the median ratio of the two."""
    ratios = p95_ms / p50_ms
    without_one = np.array([np.median(np.delete(ratios, index)) for index in range(len(ratios))])
    return describe(
        rows,
        p95_ms,
        medians.names,
        coefficients=np.array(medians.coefficients) * np.median(ratios),
        without_one=np.array(medians.without_one) * without_one[:, None],
    )
