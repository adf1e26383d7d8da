"""What a fit leaves over, as a smooth function of the columns: a Gaussian process with priors fit for few samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from autocompress.predictors.family import Array
from autocompress.predictors.logarithms import Logarithms, logarithms

OUTLIER = 2.5
"""Residuals beyond this many robust standard deviations are taken for noise of their own size."""
LEAST_NOISE = 1e-4
"""Smallest standard deviation of the noise, as a share of the figure: clocks are no better."""
PRIOR_DEVIATION = 1.0
"""Standard deviation of the normal priors of the logarithms of length, signal and noise (lengths and scales within a
factor of e of what is usual)."""
ITERATIONS = 25
"""Of each search for hyperparameters: three of them need no more."""
MOST_SAMPLES = 300
"""Time grows with their third power; of more, so many are drawn at random."""
CHUNK = 2048
"""Rows predicted at a time: their kernel with 200 samples stays in a second-level cache."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of ``signal**2 exp(-d**2 / (2 length**2))`` and normal noise.

    Attributes:
        length: In standard deviations of a column, times the square root of the count of columns.
        signal: Standard deviation of the function.
        noise: Standard deviation of the noise of a sample that is no outlier.
    """

    length: float
    signal: float
    noise: float


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior mean, times how much it is to be trusted.

    Attributes:
        scale: How columns become logarithms.
        length: Length scale on these.
        points: The fitted samples on that scale (samples x columns).
        weights: One a sample: signal variance times trust times ``(K + noise)**-1 residuals``.
    """

    kind: ClassVar[str] = "gaussian_process"
    scale: Logarithms
    length: float
    points: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def predict(self, rows: Array) -> Array:
        """Return the mean (samples,) of the residual at ``rows`` (samples x columns), to single precision."""
        if not any(self.weights):
            return np.zeros(len(rows))
        points = (np.array(self.points) / self.length).astype(np.float32)
        weights = np.array(self.weights, dtype=np.float32)
        places = (self.scale.of(rows) / self.length).astype(np.float32)
        means = [_similarity(places[start : start + CHUNK], points) @ weights for start in range(0, len(rows), CHUNK)]
        return np.concatenate(means).astype(np.float64) if means else np.zeros(0)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "scale": self.scale.to_dict(),
            "length": self.length,
            "points": [list(point) for point in self.points],
            "weights": list(self.weights),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GaussianProcess:
        """Read what ``to_dict`` wrote."""
        points = tuple(tuple(point) for point in data["points"])
        return cls(Logarithms.from_dict(data["scale"]), data["length"], points, tuple(data["weights"]))


def fit_gaussian_process(rows: Array, residual: Array) -> GaussianProcess:
    """Fit ``residual`` (samples,), in logarithms, to ``rows`` (samples x columns).

    Hyperparameters maximize the marginal likelihood times their priors (Rasmussen and Williams 2006, section 5.4.1).
    The mean is then multiplied by the probability that there is a function at all rather than noise alone, from the
    difference of their Bayesian information criteria: few samples, or none of a pattern, leave nothing.
    """
    if len(rows) > MOST_SAMPLES:
        drawn = np.random.default_rng(0).choice(len(rows), MOST_SAMPLES, replace=False)
        rows, residual = rows[drawn], residual[drawn]
    scale = logarithms(rows)
    places = scale.of(rows)
    if places.shape[1] == 0:
        return GaussianProcess(scale, 1.0, tuple(() for _ in rows), (0.0,) * len(rows))
    extra = outlier_variance(residual)
    found, gain = _maximize(places, residual, extra)
    trust = 1 / (1 + np.exp(min(log(len(residual)) - gain, 500.0)))  # Two parameters more than noise alone.
    weights = trust * posterior_weights(places, residual, extra, found)
    length = found.length * places.shape[1] ** 0.5
    return GaussianProcess(scale, length, tuple(map(tuple, places.tolist())), tuple(weights.tolist()))


def posterior_weights(places: Array, residual: Array, extra: Array, at: Hyperparameters) -> Array:
    """Return (samples,) such that the mean at x is the sum of ``weights * exp(-d(x, places)**2 / (2 length**2))``."""
    distances = _squared_distances(places) / places.shape[1]
    kernel = at.signal**2 * np.exp(-0.5 * distances / at.length**2)
    noise = np.diag(at.noise**2 + extra)
    return np.asarray(at.signal**2 * cho_solve(cho_factor(kernel + noise), residual), dtype=np.float64)


def outlier_variance(residual: Array) -> Array:
    """Return the variance (samples,) >= 0 that each sample's noise has beyond the usual: 0 but for outliers.

    It is added to the noise, not a multiple of it: else outliers would have all samples' noise grow with theirs.
    """
    spread = max(1.4826 * float(np.median(np.abs(residual))), LEAST_NOISE)
    return np.asarray(np.maximum(0.0, residual**2 - (OUTLIER * spread) ** 2), dtype=np.float64)


def _maximize(places: Array, residual: Array, extra: Array) -> tuple[Hyperparameters, float]:
    """Return the best hyperparameters, and the gain in log likelihood over noise alone (0 if there is none)."""
    distances = _squared_distances(places) / places.shape[1]
    spread = max(float(np.sqrt(np.mean(residual**2 - extra))), LEAST_NOISE)
    usual = np.log([1.0, spread, spread])

    def loss(logarithms_: Array) -> tuple[float, Array]:
        value, slope = negative_log_likelihood(logarithms_, distances, residual, extra)
        away = (logarithms_ - usual) / PRIOR_DEVIATION
        return value + 0.5 * float(away @ away), slope + away / PRIOR_DEVIATION

    bounds = [(log(0.1), log(10.0)), (usual[1] - 7, usual[1] + 3), (log(LEAST_NOISE), usual[2] + 3)]
    starts = [usual + [0.0, -0.5, -0.5], usual + [0.7, 0.5, -1.0]]
    searches = [minimize(loss, start, jac=True, bounds=bounds, options={"maxiter": ITERATIONS}) for start in starts]
    found = min(searches, key=lambda each: float(each.fun))
    length, signal, noise = np.exp(found.x).tolist()
    likelihood = -negative_log_likelihood(found.x, distances, residual, extra)[0]
    alone = -0.5 * float(np.sum(residual**2 / (spread**2 + extra) + np.log(spread**2 + extra)))
    return Hyperparameters(length, signal, noise), max(0.0, likelihood - alone)


def negative_log_likelihood(logarithms_: Array, distances: Array, residual: Array, extra: Array) -> tuple[float, Array]:
    """Return minus the log marginal likelihood, without its constant, and its slope.

    Rasmussen and Williams 2006, equations 5.8 and 5.9.

    Args:
        logarithms_: (3,), of length, signal and noise.
        distances: (samples x samples), squared, divided by the count of columns.
        residual: (samples,).
        extra: (samples,), see ``outlier_variance``.
    """
    length, signal, noise = np.exp(logarithms_)
    shape = np.exp(-0.5 * distances / length**2)
    kernel = signal**2 * shape
    factor = cho_factor(kernel + np.diag(noise**2 + extra + 1e-10 * signal**2), lower=True)
    inverse = cho_solve(factor, np.eye(len(residual)))
    weights = inverse @ residual
    value = 0.5 * float(residual @ weights) + float(np.log(np.diag(factor[0])).sum())
    tension = inverse - np.outer(weights, weights)
    slopes = [
        0.5 * np.sum(tension * kernel * distances) / length**2,
        np.sum(tension * kernel),
        np.trace(tension) * noise**2,
    ]
    return value, np.array(slopes)


def _squared_distances(places: Array) -> Array:
    squares = np.sum(places**2, axis=1)
    return np.asarray(np.maximum(squares[:, None] + squares - 2 * places @ places.T, 0.0), dtype=np.float64)


def _similarity(places: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponent = places @ points.T
    exponent -= 0.5 * np.sum(places**2, axis=1)[:, None]
    exponent -= 0.5 * np.sum(points**2, axis=1)
    return np.asarray(np.exp(np.minimum(exponent, 0.0, out=exponent), out=exponent))
