"""Choose the shape whose measurement is expected to tell the most about all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autocompress.predictors.family import Array
from autocompress.predictors.features import LATENCY, columns, features_many
from autocompress.predictors.ridge import Ridge
from autocompress.shape import ModelShape

POOL = 64
"""Shapes to choose from, and as many blocks: more hardly gain."""


def most_telling(
    pool: Sequence[ModelShape],
    asked: Sequence[ModelShape],
    taken: Sequence[tuple[Sequence[ModelShape], Array]],
    tokens: int,
) -> ModelShape:
    """Return the shape of ``pool`` whose measurement would lower the variance of predictions the most.

    Latency is a sum of columns times unknown costs, so a sample narrows what is known of the costs by the columns that
    it has, whatever is measured. Of each shape the expected gain is the fall of the mean variance of the relative error
    over ``asked`` (I-optimality: Cohn, Ghahramani and Jordan 1996, section 4; one sample ahead), as a share of that
    variance; engines' gains add up.

    Args:
        pool: To choose from; at least one.
        asked: Shapes like those that will be asked about.
        taken: Of each engine, shapes that were measured and their latencies (shapes,) > 0; at least two shapes.
        tokens: Length of the sequences.
    """
    gains = np.zeros(len(pool))
    for shapes, latency_ms in taken:
        known, new, all_asked = (columns(features_many(some, tokens), LATENCY) for some in (shapes, pool, asked))
        fit = Ridge().fit(known, latency_ms)
        gains += gain(*(rows / fit.predict(rows)[:, None] for rows in (known, new, all_asked)), ridge=Ridge().ridge)
    return pool[int(np.argmax(gains))]


def gain(known: Array, new: Array, asked: Array, *, ridge: float) -> Array:
    """Return (new,) by what share each new row would lower the mean variance over ``asked``.

    All are rows (shapes x columns) of a linear model with noise of one size. With P = sum of known rows' squares plus
    the ridge, the variance at x is x P^-1 x; a new row z lowers it by (x P^-1 z)^2 / (1 + z P^-1 z).

    Args:
        known: Rows that were measured.
        new: Rows to choose from.
        asked: Rows whose variance matters.
        ridge: Prior precision of each column's coefficient, for columns of mean square 1 over ``asked``.
    """
    size = np.sqrt(np.mean(asked**2, axis=0))
    used = size > 0
    known, new, asked = (rows[:, used] / size[used] for rows in (known, new, asked))
    covariance = np.linalg.inv(known.T @ known + ridge * np.eye(known.shape[1]))
    spread = asked.T @ asked / len(asked)
    moved = new @ covariance
    fall = np.einsum("ij,jk,ik->i", moved, spread, moved) / (1 + np.sum(moved * new, axis=1))
    return np.asarray(fall / np.trace(covariance @ spread), dtype=np.float64)
