"""What an artifact should take, from all others of its run: a model that slow stretches do not bend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HUBER = 1.345
"""Residuals beyond this many standard deviations count linearly (95 % efficiency on normal errors; Huber 1964)."""
SAMPLES_PER_TERM = 10
"""Squares and products of the logarithms are fitted too where each term has so many samples."""
ITERATIONS = 30
_SMALLEST_SCALE = 1e-4
_RIDGE = 1e-6


def expect_ms(configurations: Array, latency_ms: Array, clean: npt.NDArray[np.bool_]) -> Array:
    """Return (samples,) what each sample should take, in milliseconds, with Huber's loss of the relative error.

    The logarithm of a latency is fitted by the logarithms of its configuration and, where samples suffice, their
    squares and products. A stretch that is slower by a factor then only moves the constant, so the slopes hold even
    where half of the run is slow.

    Args:
        configurations: (samples x columns) > 0, what sets one artifact apart from another.
        latency_ms: (samples,) > 0.
        clean: (samples,), which samples are fitted.
    """
    logarithms = np.log(configurations)
    varying = logarithms[:, np.ptp(logarithms, axis=0) > 0]
    scaled = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    design = _terms(scaled, int(clean.sum()))
    return np.asarray(np.exp(design @ _fit(design[clean], np.log(latency_ms[clean]))))


def _terms(scaled: Array, samples: int) -> Array:
    count = scaled.shape[1]
    linear = np.column_stack([np.ones(len(scaled)), scaled])
    first, second = np.triu_indices(count)
    if samples < SAMPLES_PER_TERM * (1 + count + len(first)):
        return linear
    return np.column_stack([linear, scaled[:, first] * scaled[:, second]])


def _fit(design: Array, target: Array) -> Array:
    weights = np.ones(len(target))
    penalty = _RIDGE * len(target) * np.eye(design.shape[1])
    solution = np.zeros(design.shape[1])
    for _ in range(ITERATIONS):
        weighted = design * weights[:, None]
        before = solution
        solution = np.asarray(np.linalg.solve(design.T @ weighted + penalty, weighted.T @ target), dtype=np.float64)
        residual = np.abs(target - design @ solution)
        scale = max(1.4826 * float(np.median(residual)), _SMALLEST_SCALE)
        weights = np.minimum(1.0, HUBER * scale / np.maximum(residual, 1e-300))
        if np.allclose(solution, before, rtol=1e-8, atol=1e-12):
            break
    return solution
