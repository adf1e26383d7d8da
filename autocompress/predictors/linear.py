"""One fitted figure: coefficients of feature columns, and those of the fits that left out one sample each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from autocompress.cost import Estimate
from autocompress.predictors.features import columns
from autocompress.predictors.intervals import HeldOut, held_out, jackknife_plus, log_errors
from autocompress.predictors.regression import fit_relative, leave_one_out

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """``offset + features . coefficients``.

    Attributes:
        names: Columns of ``features.FEATURES``.
        coefficients: One a column.
        offset: What is there without any model.
        without_one: Coefficients of the fit that left out each sample (samples x columns).
        errors: ``intervals.log_errors`` of these fits on the sample that each left out.
        held_out: The same errors, summed up.
    """

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    offset: float
    without_one: tuple[tuple[float, ...], ...]
    errors: tuple[float, ...]
    held_out: HeldOut

    def estimate(self, row: Array) -> Estimate:
        """Return the value and its interval for a row that ``features`` made."""
        picked = columns(row, self.names)
        value = self.offset + float(picked @ np.array(self.coefficients))
        predictions = self.offset + np.array(self.without_one) @ picked
        low, high = jackknife_plus(predictions, np.array(self.errors))
        return Estimate(value, min(low, value), max(high, value))

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Linear:
        """Read what ``to_dict`` wrote."""
        values = {key: _tuples(value) for key, value in data.items()}
        return cls(**{**values, "held_out": HeldOut(**data["held_out"])})  # type: ignore[arg-type]


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def fit_linear(rows: Array, measured: Array, names: tuple[str, ...], *, ridge: float, offset: float = 0.0) -> Linear:
    """Fit ``measured`` (samples,) to the columns ``names`` of ``rows`` (samples x features)."""
    design, target = columns(rows, names), measured - offset
    return describe(
        rows,
        measured,
        names,
        coefficients=fit_relative(design, target, measured, ridge=ridge),
        without_one=leave_one_out(design, target, measured, ridge=ridge),
        offset=offset,
    )


def describe(
    rows: Array,
    measured: Array,
    names: tuple[str, ...],
    *,
    coefficients: Array,
    without_one: Array,
    offset: float = 0.0,
) -> Linear:
    """Put coefficients together with their errors on the samples left out."""
    predicted = offset + np.sum(columns(rows, names) * without_one, axis=1)
    return Linear(
        names=names,
        coefficients=tuple(coefficients.tolist()),
        offset=offset,
        without_one=tuple(map(tuple, without_one.tolist())),
        errors=tuple(log_errors(predicted, measured).tolist()),
        held_out=held_out(predicted, measured),
    )
