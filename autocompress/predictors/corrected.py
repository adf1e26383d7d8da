"""A simple fit and, on top of it, a function of what it leaves over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from autocompress.predictors.family import Array, Family, Fit


class Residual(Protocol):
    """A fitted function of what another fit leaves over, in logarithms; where nothing is known it is 0."""

    def predict(self, rows: Array) -> Array:
        """Return the logarithm (samples,) of the factor that is missing at each of ``rows`` (samples x columns)."""

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, ``kind`` among them."""


@dataclass(frozen=True)
class CorrectedFit:
    """``base`` times ``exp(residual)``."""

    kind: ClassVar[str] = "corrected"
    base: Fit
    residual: Residual

    def predict(self, rows: Array) -> Array:
        """Return the figure (samples,) of each of ``rows`` (samples x columns)."""
        return np.asarray(self.base.predict(rows) * np.exp(self.residual.predict(rows)), dtype=np.float64)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"kind": self.kind, "base": self.base.to_dict(), "residual": self.residual.to_dict()}


@dataclass(frozen=True)
class Corrected:
    """Fits ``base``, then the logarithms of measured over predicted.

    Attributes:
        base: A simpler family.
        residual: Fits logarithms (samples,) to rows (samples x columns).
    """

    base: Family
    residual: Callable[[Array, Array], Residual]

    def fit(self, rows: Array, target: Array) -> CorrectedFit:
        """Fit ``target`` (samples,) to ``rows`` (samples x columns)."""
        base = self.base.fit(rows, target)
        return CorrectedFit(base, self.residual(rows, np.log(target / base.predict(rows))))
