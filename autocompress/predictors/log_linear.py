"""A figure as a product of powers: its logarithm is linear in the logarithms of the columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from autocompress.predictors.family import SMALLEST, Array
from autocompress.predictors.logarithms import Logarithms, logarithms
from autocompress.predictors.regression import HUBER, ITERATIONS, SMALLEST_SCALE

SAMPLES_PER_TERM = 10
"""Squares and products are fitted too where each term has so many samples."""
RIDGES: tuple[float, ...] = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared coefficients that are tried, in units of the sum over samples."""
_LARGEST = 60.0


@dataclass(frozen=True)
class LogLinearFit:
    """``exp(offset + terms . coefficients)``.

    Attributes:
        scale: How columns become logarithms.
        offset: Logarithm of the figure at the mean of the logarithms.
        coefficients: One a logarithm; then, if there are more, one a square or product of two.
    """

    kind: ClassVar[str] = "log_linear"
    scale: Logarithms
    offset: float
    coefficients: tuple[float, ...]

    def predict(self, rows: Array) -> Array:
        """Return the figure (samples,) of each of ``rows`` (samples x columns)."""
        scaled = self.scale.of(rows)
        terms = scaled if len(self.coefficients) == scaled.shape[1] else with_products(scaled)
        logarithm = self.offset + terms @ np.array(self.coefficients)
        return np.asarray(np.maximum(np.exp(np.clip(logarithm, -_LARGEST, _LARGEST)), SMALLEST), dtype=np.float64)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "scale": self.scale.to_dict(),
            "offset": self.offset,
            "coefficients": list(self.coefficients),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LogLinearFit:
        """Read what ``to_dict`` wrote."""
        return cls(Logarithms.from_dict(data["scale"]), data["offset"], tuple(data["coefficients"]))


@dataclass(frozen=True)
class LogLinear:
    """Ridge with Huber's loss; the ridge is the one that foresees samples best that are left out, one at a time.

    Attributes:
        products: Fit squares and products of the logarithms too, given ``SAMPLES_PER_TERM``.
    """

    products: bool = True

    def fit(self, rows: Array, target: Array) -> LogLinearFit:
        """Fit ``target`` (samples,) to ``rows`` (samples x columns)."""
        scale = logarithms(rows)
        terms, goal = scale.of(rows), np.log(target)
        count = terms.shape[1]
        if self.products and len(rows) >= SAMPLES_PER_TERM * (1 + count + count * (count + 1) // 2):
            terms = with_products(terms)
        design = np.column_stack([np.ones(len(rows)), terms])
        fits = [_fit(design, goal, ridge) for ridge in RIDGES]
        best, _ = min(fits, key=lambda fit: fit[1])
        return LogLinearFit(scale, float(best[0]), tuple(best[1:].tolist()))


def with_products(scaled: Array) -> Array:
    """Return ``scaled`` (samples x columns), then the squares and products of its columns."""
    first, second = np.triu_indices(scaled.shape[1])
    return np.column_stack([scaled, scaled[:, first] * scaled[:, second]])


def _fit(design: Array, goal: Array, ridge: float) -> tuple[Array, float]:
    """Return coefficients, the constant first, and the mean absolute error on samples left out.

    With the weights held, leaving out sample i changes its residual r to r / (1 - h), h its leverage (Allen 1974).
    """
    penalty = ridge * len(goal) * np.eye(design.shape[1])
    penalty[0, 0] = 1e-12
    weights = np.ones(len(goal))
    solution = np.zeros(design.shape[1])
    for _ in range(ITERATIONS):
        weighted = design * weights[:, None]
        before = solution
        inverse = np.linalg.inv(design.T @ weighted + penalty)
        solution = inverse @ (weighted.T @ goal)
        residual = np.abs(goal - design @ solution)
        spread = max(1.4826 * float(np.median(residual)), SMALLEST_SCALE)
        if np.allclose(solution, before, rtol=1e-8, atol=1e-12):
            break
        weights = np.minimum(1.0, HUBER * spread / np.maximum(residual, 1e-300))
    leverage = np.sum((weighted @ inverse) * design, axis=1)
    left_out = residual / np.maximum(1 - leverage, 1e-3)
    return np.asarray(solution, dtype=np.float64), float(np.mean(np.minimum(left_out, 1.0)))
