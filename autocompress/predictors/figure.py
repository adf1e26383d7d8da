"""One fitted figure of a shape's cost: the family chosen for it, and the intervals that hold new values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from autocompress.predictors.corrected import CorrectedFit
from autocompress.predictors.families import fit_from_dict
from autocompress.predictors.family import Array, Family, Fit
from autocompress.predictors.features import columns
from autocompress.predictors.intervals import FEWEST_SAMPLES, Conformal, HeldOut, conformal, held_out
from autocompress.predictors.selection import Score, select


@dataclass(frozen=True)
class Figure:
    """A fit of one figure.

    Attributes:
        names: Columns of ``features.FEATURES`` that it reads.
        family: Name of the family that was chosen.
        fit: Its fit on all samples.
        intervals: From errors on samples left out.
        held_out: The same errors, summed up, of the samples whose errors count.
        scores: How each family that was compared foresaw samples left out.
        out_of_fold: What fits without each sample say of it, in the order of the samples; empty in files of earlier
            versions, which did not keep it.
    """

    names: tuple[str, ...]
    family: str
    fit: Fit
    intervals: Conformal
    held_out: HeldOut
    scores: tuple[Score, ...]
    out_of_fold: tuple[float, ...] = ()

    def estimates(self, rows: Array) -> Array:
        """Return (samples x 3): value, low and high end for each of ``rows`` (samples x features)."""
        values = self.fit.predict(columns(rows, self.names))
        return np.column_stack([values, *self.intervals.bounds(values)])

    def left_out(self) -> Array:
        """Return (samples x 3): what is said of each sample that is left out of the fit, as ``estimates`` has it."""
        values = np.array(self.out_of_fold, dtype=np.float64)
        return np.column_stack([values, *self.intervals.bounds(values)])

    def parts(self, rows: Array) -> Array:
        """Return (parts,) what each of ``rows`` (parts x features), that add up to a model, takes by itself.

        A correction of the whole is left out: it says nothing of parts.
        """
        base = self.fit.base if isinstance(self.fit, CorrectedFit) else self.fit
        return base.predict(columns(rows, self.names))

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return {
            "names": list(self.names),
            "family": self.family,
            "fit": self.fit.to_dict(),
            "intervals": self.intervals.to_dict(),
            "held_out": asdict(self.held_out),
            "scores": [asdict(score) for score in self.scores],
            "out_of_fold": list(self.out_of_fold),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        """Read what ``to_dict`` wrote."""
        return cls(
            names=tuple(data["names"]),
            family=data["family"],
            fit=ScaledFit.from_dict(data["fit"])
            if data["fit"]["kind"] == ScaledFit.kind
            else fit_from_dict(data["fit"]),
            intervals=Conformal.from_dict(data["intervals"]),
            held_out=HeldOut(**data["held_out"]),
            scores=tuple(Score(**score) for score in data["scores"]),
            out_of_fold=tuple(data.get("out_of_fold", ())),
        )


@dataclass(frozen=True)
class ScaledFit:
    """A multiple of another fit."""

    kind: ClassVar[str] = "scaled"
    base: Fit
    factor: float

    def predict(self, rows: Array) -> Array:
        """Return the figure (samples,) of each of ``rows`` (samples x columns)."""
        return self.factor * self.base.predict(rows)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"kind": self.kind, "base": self.base.to_dict(), "factor": self.factor}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScaledFit:
        """Read what ``to_dict`` wrote."""
        return cls(fit_from_dict(data["base"]), data["factor"])


def fit_figure(
    families: Mapping[str, Family],
    rows: Array,
    measured: Array,
    names: tuple[str, ...],
    *,
    drawn: npt.NDArray[np.bool_],
) -> tuple[Figure, Array]:
    """Choose a family by cross-validation, fit it on all samples, and return it with what it says of samples left out.

    Args:
        families: Name -> family, the simplest first.
        rows: (samples x features).
        measured: (samples,) > 0.
        names: Columns to read.
        drawn: (samples,), which are drawn at random as new shapes will be. Where these suffice, they alone decide the
            width of the intervals: errors at the corners of a space say little about its inside.
    """
    design = columns(rows, names)
    counts = _counting(drawn)
    selection = select(families, design, measured, counts=counts)
    out_of_fold = np.array(selection.out_of_fold)
    fit = families[selection.family].fit(design, measured)
    return _figure(names, selection.family, fit, selection.scores, out_of_fold, measured, counts), out_of_fold


def scale_figure(
    base: Figure, out_of_fold: Array, factors: Array, measured: Array, *, drawn: npt.NDArray[np.bool_]
) -> Figure:
    """Return ``base`` times the median of ``factors`` (samples,), held against ``measured`` (samples,).

    The factor has next to no freedom: that it saw every sample is left out of account.
    """
    factor = float(np.median(factors))
    counts = _counting(drawn)
    fit = ScaledFit(base.fit, factor)
    return _figure(base.names, base.family, fit, base.scores, factor * out_of_fold, measured, counts)


def _counting(drawn: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return (samples,) whose errors count: those of the drawn ones, where these suffice, else all."""
    return drawn if drawn.sum() >= FEWEST_SAMPLES else np.ones_like(drawn)


def _figure(
    names: tuple[str, ...],
    family: str,
    fit: Fit,
    scores: tuple[Score, ...],
    out_of_fold: Array,
    measured: Array,
    counts: npt.NDArray[np.bool_],
) -> Figure:
    foreseen = np.median(out_of_fold, axis=0)
    return Figure(
        names=names,
        family=family,
        fit=fit,
        intervals=conformal(out_of_fold, measured, counts=counts),
        held_out=held_out(foreseen[counts], measured[counts]),
        scores=scores,
        out_of_fold=tuple(foreseen.tolist()),
    )
