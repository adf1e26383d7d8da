"""Fit non-negative coefficients to few, noisy samples so that relative errors are small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Array = npt.NDArray[np.float64]

HUBER = 1.345
"""Residuals beyond this many standard deviations count linearly (95 % efficiency on normal errors; Huber 1964)."""
SMALLEST_SCALE = 1e-4
"""Relative residuals below this are rounding, never outliers."""
ITERATIONS = 20


def fit_relative(design: Array, target: Array, scale: Array, *, ridge: float, prior: Array | None = None) -> Array:
    """Return coefficients (columns,) >= 0 that minimize Huber's loss of ``(design @ w - target) / scale``.

    Iteratively reweighted non-negative least squares. Costs are sums of work that never takes negative time, so the
    sign is known; it also keeps few samples from being fitted by large coefficients that cancel.

    Args:
        design: (samples x columns) >= 0.
        target: (samples,), what is to be met.
        scale: (samples,) > 0, what an error is relative to.
        ridge: Weight of how far coefficients are from ``prior``, squared, each times its column's root mean square
            (so: of each column's usual share of the target), in units of one sample's squared relative error.
        prior: (columns,) >= 0; 0 if not given. A column that is 0 in all samples keeps its own.
    """
    prior = np.zeros(design.shape[1]) if prior is None else prior
    relative = design / scale[:, None]
    size = np.sqrt(np.mean(relative**2, axis=0))
    used = size > 0
    rows, goal = relative[:, used] / size[used], target / scale
    penalty = np.sqrt(ridge) * np.eye(rows.shape[1])
    pull = np.sqrt(ridge) * prior[used] * size[used]
    weights = np.ones(len(rows))
    solution = np.zeros(rows.shape[1])
    for _ in range(ITERATIONS):
        root = np.sqrt(weights)
        before = solution
        solution, _ = nnls(np.vstack([rows * root[:, None], penalty]), np.concatenate([goal * root, pull]))
        residual = np.abs(rows @ solution - goal)
        spread = max(1.4826 * float(np.median(residual)), SMALLEST_SCALE)
        weights = np.minimum(1.0, HUBER * spread / np.maximum(residual, 1e-300))
        if np.allclose(solution, before, rtol=1e-6, atol=1e-12):
            break
    coefficients = prior.copy()
    coefficients[used] = solution / size[used]
    return coefficients
