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
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

from autocompress.search.objective import Choices, Params

Floats: TypeAlias = npt.NDArray[np.float64]
Nats: TypeAlias = Mapping[str, Mapping[object, float]]
"""By parameter and choice, what it costs alone, in nats."""

LEVEL, SLOPE, OWN_SLOPE = 10.0, 2.0, 1.0
"""Standard deviations, in those of the scores: of the level, of what is lost from the least nats to the most, and of
what each parameter loses beside. ``SLOPE`` is also what is thought to be lost."""
USUAL = np.log([0.5, 0.5])
"""Logarithms of the length of likeness, in the span of the coordinates, and of the deviations' standard deviation."""
PRIOR_DEVIATION = 1.0
"""Of the normal prior of both logarithms."""
MARK = 0.3
"""How far two choices lie apart of which nothing was measured, in spans."""
LEAST_UNIT = 1e-3
"""What the standard deviation of the scores is thought to be at least: of few scores it says nothing."""
LEAST_NOISE = 0.02
"""Standard deviation of a score's noise at least, in those of the scores."""


@dataclass(frozen=True)
class Places:
    """Where candidates are.

    Attributes:
        roots: (candidates x measured parameters) the square root of what each choice costs alone, at least 0.
        marks: (candidates x other parameters) a number for each choice of what was not measured: equal or not.
        span: From the candidate of least cost to that of most, the distance between their roots.
    """

    roots: Floats
    marks: npt.NDArray[np.intp]
    span: float

    @classmethod
    def of(cls, nats: Nats, choices: Choices, candidates: Sequence[Params]) -> Places:
        """Return the places of ``candidates``, which choose something of each of ``choices``."""
        measured = [name for name in choices if name in nats]
        others = [name for name in choices if name not in nats]
        roots = [[max(0.0, nats[name][each[name]]) ** 0.5 for name in measured] for each in candidates]
        marks = [[choices[name].index(each[name]) for name in others] for each in candidates]
        return cls(
            np.array(roots, np.float64).reshape(len(candidates), len(measured)),
            np.array(marks, np.intp).reshape(len(candidates), len(others)),
            sum(max(0.0, *nats[name].values()) for name in measured) ** 0.5 or 1.0,
        )

    def __len__(self) -> int:
        return len(self.roots)


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


@dataclass(frozen=True)
class Surrogate:
    """What scores say of other candidates.

    Attributes:
        known: Places of what was scored; may be none.
        length: Of likeness, in spans.
        signal: Standard deviation of the deviations from the line.
        weights: (scored,) such that the mean is their sum with the covariances, on the scale of deviations.
        lower: (scored x scored) the Cholesky factor of the covariance of the noisy scores.
        level, unit: Of the scores: score = level + unit * deviation.
    """

    known: Places
    length: float
    signal: float
    weights: Floats
    lower: Floats
    level: float
    unit: float

    def at(self, asked: Places) -> Posterior:
        """Return what the scores of ``asked`` are thought to be; without any score, in negative nats."""
        if not len(self.known):
            return Posterior(-(asked.roots**2).sum(1), np.ones(len(asked)))
        nats = (asked.roots / asked.span) ** 2
        cross = _line(asked, self.known) + _likeness(_squares(asked, self.known), self.length, self.signal)
        whitened = solve_triangular(self.lower, cross.T, lower=True)
        mean = cross @ self.weights - SLOPE * nats.sum(1)
        prior = LEVEL**2 + SLOPE**2 * nats.sum(1) ** 2 + OWN_SLOPE**2 * (nats**2).sum(1) + self.signal**2
        variance = np.maximum(prior - (whitened**2).sum(0), 1e-9)
        return Posterior(self.level + self.unit * mean, self.unit * np.sqrt(variance))


def fit(known: Places, scores: Floats, noise: Floats) -> Surrogate:
    """Return what scores say; of the length and the signal, what maximizes their likelihood times their prior.

    Args:
        known: Of what was scored.
        scores: (scored,) in any unit.
        noise: (scored,) standard deviations of the scores' noise, in their unit.
    """
    if not len(known):
        length, signal = np.exp(USUAL).tolist()
        return Surrogate(known, length, signal, np.zeros(0), np.zeros((0, 0)), level=0.0, unit=1.0)
    level, unit = float(scores.mean()), max(float(scores.std()), float(noise.mean()), LEAST_UNIT)
    goal = (scores - level) / unit + SLOPE * ((known.roots / known.span) ** 2).sum(1)
    squares = _squares(known, known)
    certain = _line(known, known) + np.diag(np.maximum(noise / unit, LEAST_NOISE) ** 2)

    def loss(hyper: Floats) -> float:
        lower = np.linalg.cholesky(certain + _likeness(squares, *np.exp(hyper)))
        whitened = solve_triangular(lower, goal, lower=True)
        away = (hyper - USUAL) / PRIOR_DEVIATION
        return float(0.5 * whitened @ whitened + np.log(np.diag(lower)).sum() + 0.5 * away @ away)

    found = minimize(loss, USUAL, method="Nelder-Mead", options={"maxiter": 40}).x if len(known) > 2 else USUAL
    length, signal = np.exp(found).tolist()
    lower: Floats = np.asarray(np.linalg.cholesky(certain + _likeness(squares, length, signal)), np.float64)
    return Surrogate(known, length, signal, cho_solve((lower, True), goal), lower, level, unit)


def _line(rows: Places, columns: Places) -> Floats:
    """Return the covariance of a level and of slopes in the nats, one for all parameters and one for each."""
    nats, others = (rows.roots / rows.span) ** 2, (columns.roots / columns.span) ** 2
    return np.asarray(LEVEL**2 + SLOPE**2 * np.outer(nats.sum(1), others.sum(1)) + OWN_SLOPE**2 * nats @ others.T)


def _likeness(squares: Floats, length: float, signal: float) -> Floats:
    """Return the covariance of deviations that lie so far apart."""
    return np.asarray(signal**2 * np.exp(-0.5 * squares / length**2))


def _squares(rows: Places, columns: Places) -> Floats:
    """Return the squared distances (rows x columns), in spans."""
    a, b = rows.roots / rows.span, columns.roots / columns.span
    crossed = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    different = (rows.marks[:, None, :] != columns.marks[None, :, :]).sum(-1)
    return np.asarray(np.maximum(crossed, 0.0) + MARK**2 * different)
