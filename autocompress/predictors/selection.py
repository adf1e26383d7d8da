"""Choose a family by how well it foresees samples that it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autocompress.predictors.family import Array, Family

FOLDS = 8
REPEATS = 3


@dataclass(frozen=True)
class Score:
    """How well one family foresaw samples that were left out.

    Attributes:
        family: Its name.
        mape: Mean absolute error, as a share of the measured value, over samples and repeats.
        excess: By how much that is above the best family's.
        standard_error: Of ``excess``, over samples.
    """

    family: str
    mape: float
    excess: float
    standard_error: float


@dataclass(frozen=True)
class Selection:
    """Which family was chosen, and why.

    Attributes:
        family: The first one whose ``excess`` is at most its ``standard_error``.
        scores: Of every family, in the order in which they were preferred.
        out_of_fold: What fits of the chosen family say of each sample that they were not fitted on
            (repeats x samples).
    """

    family: str
    scores: tuple[Score, ...]
    out_of_fold: tuple[tuple[float, ...], ...]


def select(
    families: Mapping[str, Family], rows: Array, target: Array, *, counts: npt.NDArray[np.bool_] | None = None
) -> Selection:
    """Return ``choose`` of what ``foresee`` says of all ``families``; arguments as of these."""
    return choose(foresee(families, rows, target), target, counts=counts)


def foresee(
    families: Mapping[str, Family],
    rows: Array,
    target: Array,
    *,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, Array]:
    """Return by family (repeats x samples) what fits say of each sample that they were not fitted on.

    Args:
        families: Name -> family.
        rows: (samples x columns), each sample another model.
        target: (samples,) > 0.
        folds: Into how many parts the samples are cut; with fewer samples each is left out alone.
        repeats: How often they are cut anew.
        seed: Of the cuts, which are the same for every family.
    """
    cuts = [_folds(len(target), folds, np.random.default_rng([seed, number])) for number in range(repeats)]
    return {
        name: np.array([_out_of_fold(family, rows, target, cut) for cut in cuts]) for name, family in families.items()
    }


def choose(foreseen: Mapping[str, Array], target: Array, *, counts: npt.NDArray[np.bool_] | None = None) -> Selection:
    """Choose the simplest family that is not worse than the best.

    Not worse is: by no more than one standard error (Breiman et al. 1984, section 3.4.3), here of the difference of
    the errors on the same samples, which is smaller than that of either error.

    Args:
        foreseen: What ``foresee`` returned, the simplest family first.
        target: (samples,) > 0.
        counts: (samples,), whose errors count; others are only fitted on. All, if not given.
    """
    counted = np.ones(len(target), dtype=bool) if counts is None else counts
    errors = {name: np.abs(each / target - 1).mean(axis=0)[counted] for name, each in foreseen.items()}
    best = min(errors, key=lambda name: float(errors[name].mean()))
    scores = tuple(_score(name, each, errors[best]) for name, each in errors.items())
    chosen = next(score.family for score in scores if score.excess <= score.standard_error)
    return Selection(chosen, scores, tuple(map(tuple, foreseen[chosen].tolist())))


def _score(name: str, errors: Array, best: Array) -> Score:
    excess = errors - best
    error = float(excess.std(ddof=1)) / len(excess) ** 0.5 if len(excess) > 1 else 0.0
    return Score(name, float(errors.mean()), float(excess.mean()), error)


def _folds(samples: int, folds: int, rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
    numbers = rng.permutation(samples) % min(folds, samples)
    return [numbers == number for number in range(min(folds, samples))]


def _out_of_fold(family: Family, rows: Array, target: Array, cut: list[npt.NDArray[np.bool_]]) -> Array:
    foreseen = np.empty(len(target))
    for out in cut:
        foreseen[out] = family.fit(rows[~out], target[~out]).predict(rows[out])
    return foreseen
