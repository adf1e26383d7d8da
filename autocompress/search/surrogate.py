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

from autocompress.search.objective import Choices, Params

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
MARK = 0.3
"""How far two choices lie apart of which nothing was measured, in spans."""
LEAST_NOISE = 0.02
"""Standard deviation of a score's noise at least, in those of the scores."""


@dataclass(frozen=True)
class Places:
    """Where candidates are.

    Attributes:
        roots: (candidates x measured parameters) the square root of what each choice costs alone, at least 0.
        marks: (candidates x other parameters) a number for each choice of what was not measured: equal or not.
    """

    roots: Floats
    marks: npt.NDArray[np.intp]

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


def posterior(known: Places, scores: Floats, noise: Floats, asked: Places) -> Posterior:
    """Return what the scores at ``asked`` are thought to be.

    Args:
        known: Of what was scored; may be empty.
        scores: (scored,) any unit.
        noise: (scored,) standard deviations of the scores' noise, in their unit.
        asked: Of the same parameters.
    """
    if not len(known):
        return Posterior(-(asked.roots**2).sum(1), np.ones(len(asked)))
    span = float(np.linalg.norm(np.ptp(np.concatenate([known.roots, asked.roots]), axis=0))) or 1.0
    near, far = known.roots / span, asked.roots / span
    unit = max(float(scores.std()), float(noise.mean()), 1e-9)
    sd = np.maximum(noise / unit, LEAST_NOISE)
    goal = (scores - scores.mean()) / unit + SLOPE * (near**2).sum(1)
    line, squares = _line(near, near), _squares(known, known, span)

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
    cross = _line(far, near) + signal**2 * np.exp(-0.5 * _squares(asked, known, span) / length**2)
    whitened = solve_triangular(lower, cross.T, lower=True)
    mean = whitened.T @ solve_triangular(lower, goal, lower=True) - SLOPE * (far**2).sum(1)
    own = LEVEL**2 + SLOPE**2 * (far**2).sum(1) ** 2 + OWN_SLOPE**2 * (far**4).sum(1) + signal**2
    variance = np.maximum(own - (whitened**2).sum(0), 1e-9)
    return Posterior(float(scores.mean()) + unit * mean, unit * np.sqrt(variance))


def _line(rows: Floats, columns: Floats) -> Floats:
    """Return the covariance of a level and of slopes in the nats, one for all parameters and one for each."""
    nats, others = rows**2, columns**2
    return np.asarray(LEVEL**2 + SLOPE**2 * np.outer(nats.sum(1), others.sum(1)) + OWN_SLOPE**2 * nats @ others.T)


def _squares(rows: Places, columns: Places, span: float) -> Floats:
    """Return the squared distances (rows x columns), in spans."""
    a, b = rows.roots, columns.roots
    crossed = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    different = (rows.marks[:, None, :] != columns.marks[None, :, :]).sum(-1)
    return np.asarray(np.maximum(crossed, 0.0) / span**2 + MARK**2 * different)
