"""What a way to fit one figure offers: arrays in, a fit out. Nothing here knows shapes or devices."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SMALLEST = 1e-12
"""Predictions are no less, so that their logarithms exist."""


class Fit(Protocol):
    """A fitted model of one positive figure."""

    def predict(self, rows: Array) -> Array:
        """Return the figure (samples,) > 0 of each of ``rows`` (samples x columns)."""

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, ``kind`` among them; ``families.fit_from_dict`` reads them back to the bit."""


class Family(Protocol):
    """A way to fit one positive figure by its relative errors."""

    def fit(self, rows: Array, target: Array) -> Fit:
        """Fit ``target`` (samples,) > 0 to ``rows`` (samples x columns) >= 0."""
