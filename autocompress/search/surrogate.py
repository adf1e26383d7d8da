"""What is known of the scores of candidates: measured sensitivities before anything was scored, all scores after.

A Gaussian process whose coordinates are not the choices but what each choice was measured to cost alone: one dimension
a parameter, the square root of its nats (a divergence grows with the square of how far weights are moved). Choices that
cost alike lie close, those that cost nothing on one point. The score falls with the nats, at a rate of each parameter's
own, as training makes up for some and not for others; beside that there are deviations, alike where coordinates are
(Rasmussen and Williams 2006, sections 2.2 and 2.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

Floats: TypeAlias = npt.NDArray[np.float64]
Nats: TypeAlias = Mapping[str, Mapping[object, float]]
"""By parameter and choice, what it costs alone, in nats."""

LEVEL, SLOPE, OWN_SLOPE = 10.0, 2.0, 2.0
"""Standard deviations, in those of the scores: of the level, of what is lost from the least nats to the most, and of
what each parameter loses beside. ``SLOPE`` is also what is thought to be lost."""
USUAL = np.log([0.5, 0.5])
"""Logarithms of the length of likeness, in the span of the coordinates, and of the deviations' standard deviation."""
PRIOR_DEVIATION = 1.0
"""Of the normal prior of both logarithms."""
LEAST_NOISE = 0.02
"""Standard deviation of a score's noise at least, in those of the scores."""


def coordinates(nats: Nats, candidates: Sequence[Mapping[str, object]]) -> Floats:
    """Return (candidates x parameters) the square root of what each choice costs alone, 0 where that is below 0."""
    columns = [[max(0.0, costs.get(each.get(name), 0.0)) for each in candidates] for name, costs in nats.items()]
    return np.sqrt(np.array(columns, dtype=np.float64).reshape(len(nats), len(candidates)).T)


@dataclass(frozen=True)
class Posterior:
    """Means and standard deviations of the scores of candidates (candidates,), on the scores' own scale."""

    mean: Floats
    deviation: Floats

    def expected_improvement(self, best: float) -> Floats:
        """Return E[max(0, score - best)] (candidates,) (Mockus 1978; Jones et al. 1998, equation 15)."""
        away = (self.mean - best) / self.deviation
        density = np.exp(-0.5 * away**2) / np.sqrt(2 * np.pi)
        return np.asarray(self.deviation * (away * ndtr(away) + density), dtype=np.float64)


def posterior(known: Floats, scores: Floats, noise: Floats, asked: Floats) -> Posterior:
    """Return what the scores at ``asked`` are thought to be.

    Args:
        known: (scored x parameters) ``coordinates``; may be empty.
        scores: (scored,) any unit.
        noise: (scored,) standard deviations of the scores' noise, in their unit.
        asked: (candidates x parameters).
    """
    if not len(known):
        return Posterior(-(asked**2).sum(1), np.ones(len(asked)))
    places = np.concatenate([known, asked])
    span = float(np.linalg.norm(np.ptp(places, axis=0))) or 1.0
    near, far = known / span, asked / span
    unit = max(float(scores.std()), float(noise.mean()), 1e-9)
    sd = np.maximum(noise / unit, LEAST_NOISE)
    goal = (scores - scores.mean()) / unit + SLOPE * (near**2).sum(1)
    line, squares = _line(near, near), _squares(near, near)

    def covariance(hyper: Floats) -> Floats:
        length, signal = np.exp(hyper)
        return np.asarray(line + signal**2 * np.exp(-0.5 * squares / length**2) + np.diag(sd**2))

    def loss(hyper: Floats) -> float:
        factor = cho_factor(covariance(hyper), lower=True)
        fit = 0.5 * goal @ cho_solve(factor, goal) + np.log(np.diag(factor[0])).sum()
        return float(fit + 0.5 * (((hyper - USUAL) / PRIOR_DEVIATION) ** 2).sum())

    hyper = minimize(loss, USUAL, method="Nelder-Mead", options={"maxiter": 40}).x if len(known) > 2 else USUAL
    length, signal = np.exp(hyper)
    lower = np.linalg.cholesky(covariance(hyper))
    cross = _line(far, near) + signal**2 * np.exp(-0.5 * _squares(far, near) / length**2)
    whitened = solve_triangular(lower, cross.T, lower=True)
    mean = whitened.T @ solve_triangular(lower, goal, lower=True) - SLOPE * (far**2).sum(1)
    own = LEVEL**2 + SLOPE**2 * (far**2).sum(1) ** 2 + OWN_SLOPE**2 * (far**4).sum(1) + signal**2
    variance = np.maximum(own - (whitened**2).sum(0), 1e-9)
    return Posterior(float(scores.mean()) + unit * mean, unit * np.sqrt(variance))


def _line(rows: Floats, columns: Floats) -> Floats:
    """Return the covariance of a level and of slopes in the nats, one for all parameters and one for each."""
    nats, others = rows**2, columns**2
    return np.asarray(LEVEL**2 + SLOPE**2 * np.outer(nats.sum(1), others.sum(1)) + OWN_SLOPE**2 * nats @ others.T)


def _squares(rows: Floats, columns: Floats) -> Floats:
    """Return the squared distances (rows x columns)."""
    crossed = (rows**2).sum(1)[:, None] + (columns**2).sum(1) - 2 * rows @ columns.T
    return np.asarray(np.maximum(crossed, 0.0))
