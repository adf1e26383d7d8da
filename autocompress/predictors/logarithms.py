"""Columns of any size and unit as logarithms that vary alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autocompress.predictors.family import Array

FARTHEST = 6.0
"""Standard deviations from the fitted mean at which a value is cut: nothing was learnt out there."""
_STILL = 1e-9


@dataclass(frozen=True)
class Logarithms:
    """``(log(column + offset) - centre) / deviation`` of the columns that vary.

    Attributes:
        columns: Positions of these columns.
        offsets: 0 where a column was always positive, else the median of its positive values.
        centres: Means of the logarithms.
        deviations: Their standard deviations, > 0.
    """

    columns: tuple[int, ...]
    offsets: tuple[float, ...]
    centres: tuple[float, ...]
    deviations: tuple[float, ...]

    def of(self, rows: Array) -> Array:
        """Return (samples x varying columns) of ``rows`` (samples x columns) >= 0."""
        shifted = rows[:, list(self.columns)] + np.array(self.offsets)
        values = (np.log(np.maximum(shifted, 1e-300)) - np.array(self.centres)) / np.array(self.deviations)
        return np.asarray(np.clip(values, -FARTHEST, FARTHEST), dtype=np.float64)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Logarithms:
        """Read what ``to_dict`` wrote."""
        return cls(**{name: tuple(data[name]) for name in ("columns", "offsets", "centres", "deviations")})


def logarithms(rows: Array) -> Logarithms:
    """Return the scale on which each varying column of ``rows`` (samples x columns) has mean 0 and deviation 1."""
    positive = [column[column > 0] for column in rows.T]
    offsets = np.array(
        [
            0.0 if len(some) in (0, len(column)) else np.median(some)
            for some, column in zip(positive, rows.T, strict=True)
        ]
    )
    values = np.log(np.maximum(rows + offsets, 1e-300))
    deviations = values.std(axis=0)
    columns = np.flatnonzero(deviations > _STILL)
    return Logarithms(
        columns=tuple(columns.tolist()),
        offsets=tuple(offsets[columns].tolist()),
        centres=tuple(values.mean(axis=0)[columns].tolist()),
        deviations=tuple(deviations[columns].tolist()),
    )
