"""What a fit leaves over, as steps of single columns: gradient boosting of trees with one split each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from autocompress.predictors.family import Array
from autocompress.predictors.regression import SMALLEST_SCALE

BINS = 16
"""Values of a column are told apart by at most so many quantiles."""
RATE = 0.1
"""Share of a tree that is added (Friedman 2001, section 5)."""
ROUNDS = 100
FOLDS = 5
SMOOTH = 4.0
"""Samples of residual zero that each side of a split is thought to hold as well."""
FEWEST = 4
"""Samples on the smaller side of a split."""
CLIP = 2.5
"""Residuals count up to this many robust standard deviations."""


@dataclass(frozen=True)
class Steps:
    """A sum of functions of one column each, constant between cuts.

    Attributes:
        columns: Positions of the columns that matter.
        cuts: Of each of them, ascending.
        levels: Of each of them, one more than cuts: the value up to each cut, then beyond all.
    """

    kind: ClassVar[str] = "boosting"
    columns: tuple[int, ...]
    cuts: tuple[tuple[float, ...], ...]
    levels: tuple[tuple[float, ...], ...]

    def predict(self, rows: Array) -> Array:
        """Return the residual (samples,) at ``rows`` (samples x columns)."""
        total = np.zeros(len(rows))
        for column, cuts, levels in zip(self.columns, self.cuts, self.levels, strict=True):
            total += np.array(levels)[np.searchsorted(np.array(cuts), rows[:, column])]
        return total

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "columns": list(self.columns),
            "cuts": [list(each) for each in self.cuts],
            "levels": [list(each) for each in self.levels],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Steps:
        """Read what ``to_dict`` wrote."""
        return cls(tuple(data["columns"]), tuple(map(tuple, data["cuts"])), tuple(map(tuple, data["levels"])))


def fit_steps(rows: Array, residual: Array) -> Steps:
    """Fit ``residual`` (samples,), in logarithms, to ``rows`` (samples x columns).

    The number of trees is the fewest whose error on left out folds is within one standard error of the least, which
    is none where there is no pattern or are few samples.
    """
    where, cuts = _cuts(rows)
    if not len(cuts):
        return Steps((), (), ())
    below = (rows[:, where] <= cuts).astype(np.float64)
    spread = max(1.4826 * float(np.median(np.abs(residual))), SMALLEST_SCALE)
    target = np.clip(residual, -CLIP * spread, CLIP * spread)
    trees = _boost(below, target, _rounds(below, target))
    return _steps(where, cuts, trees)


def _cuts(rows: Array) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Array]:
    """Return the column and the value of each possible split: halfway between neighbouring quantiles."""
    where: list[int] = []
    cuts: list[float] = []
    for column, values in enumerate(rows.T):
        known = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1), method="nearest"))
        where += [column] * (len(known) - 1)
        cuts += ((known[1:] + known[:-1]) / 2).tolist()
    return np.array(where, dtype=np.intp), np.array(cuts)


def _boost(below: Array, target: Array, rounds: int) -> list[tuple[int, float, float]]:
    """Return trees as (split, level up to it, level beyond), each the best for what those before it leave over."""
    left = below.sum(axis=0)
    right = len(target) - left
    allowed = np.minimum(left, right) >= FEWEST
    trees: list[tuple[int, float, float]] = []
    rest = target.copy()
    for _ in range(rounds if allowed.any() else 0):
        lower = below.T @ rest
        upper = rest.sum() - lower
        gain = np.where(allowed, lower**2 / (left + SMOOTH) + upper**2 / (right + SMOOTH), -1.0)
        best = int(np.argmax(gain))
        low, high = RATE * lower[best] / (left[best] + SMOOTH), RATE * upper[best] / (right[best] + SMOOTH)
        rest -= np.where(below[:, best] > 0, low, high)
        trees.append((best, float(low), float(high)))
    return trees


def _rounds(below: Array, target: Array) -> int:
    """Return how many trees foresee folds that were left out (of samples in turn) best, within a standard error."""
    fold = np.random.default_rng(0).permutation(len(target)) % FOLDS
    errors = np.empty((ROUNDS + 1, len(target)))
    for number in range(FOLDS):
        out = fold == number
        rest = target[out].copy()
        errors[:, out] = np.abs(rest)
        for done, (split, low, high) in enumerate(_boost(below[~out], target[~out], ROUNDS), start=1):
            rest -= np.where(below[out, split] > 0, low, high)
            errors[done:, out] = np.abs(rest)
    means = errors.mean(axis=1)
    excess = errors - errors[int(np.argmin(means))]
    error = excess.std(axis=1, ddof=1) / np.sqrt(len(target))
    return int(np.argmax(excess.mean(axis=1) <= error))


def _steps(
    where: np.ndarray[tuple[int], np.dtype[np.intp]], cuts: Array, trees: list[tuple[int, float, float]]
) -> Steps:
    columns = sorted({int(where[split]) for split, _, _ in trees})
    found_cuts, found_levels = [], []
    for column in columns:
        mine = [tree for tree in trees if where[tree[0]] == column]
        edges = sorted({float(cuts[split]) for split, _, _ in mine})
        levels = [
            sum(low if edge <= cuts[split] else high for split, low, high in mine) for edge in [*edges, float("inf")]
        ]
        found_cuts.append(tuple(edges))
        found_levels.append(tuple(map(float, levels)))
    return Steps(tuple(columns), tuple(found_cuts), tuple(found_levels))
