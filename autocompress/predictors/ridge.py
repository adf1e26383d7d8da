"""The simplest family: a figure is the sum of non-negative costs of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from autocompress.predictors.family import SMALLEST, Array
from autocompress.predictors.regression import fit_relative


@dataclass(frozen=True)
class RidgeFit:
    """``rows @ coefficients``.

    Attributes:
        coefficients: One a column, >= 0.
    """

    kind: ClassVar[str] = "ridge"
    coefficients: tuple[float, ...]

    def predict(self, rows: Array) -> Array:
        """Return the figure (samples,) of each of ``rows`` (samples x columns)."""
        return np.asarray(np.maximum(rows @ np.array(self.coefficients), SMALLEST), dtype=np.float64)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"kind": self.kind, "coefficients": list(self.coefficients)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RidgeFit:
        """Read what ``to_dict`` wrote."""
        return cls(tuple(data["coefficients"]))


@dataclass(frozen=True)
class Ridge:
    """Non-negative ridge with Huber's loss of the relative error (``regression.fit_relative``).

    Attributes:
        ridge: Weight of the squared coefficients, in units of one sample's squared relative error.
    """

    ridge: float = 1e-3

    def fit(self, rows: Array, target: Array) -> RidgeFit:
        """Fit ``target`` (samples,) to ``rows`` (samples x columns)."""
        return RidgeFit(tuple(fit_relative(rows, target, target, ridge=self.ridge).tolist()))
