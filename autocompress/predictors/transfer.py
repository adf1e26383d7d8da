"""A fresh device starts from a known one: there, too, kernels cost time, each some multiple of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autocompress.predictors.corrected import CorrectedFit
from autocompress.predictors.family import Array
from autocompress.predictors.features import LATENCY, Rows, columns
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.regression import fit_relative
from autocompress.predictors.ridge import RidgeFit

STRENGTH = 0.5
"""Weight of the known device, in units of one sample's squared relative error for a column's share of the whole: some
tenths of a share are worth a sample that is off by as much."""
LATENCY_MS = "latency_p50_ms"


@dataclass(frozen=True)
class Transferred:
    """Costs of columns near a common multiple of what they are on a known device; satisfies ``Family``.

    Attributes:
        known: (columns,) >= 0, costs of the columns there.
    """

    known: tuple[float, ...]

    def fit(self, rows: Array, target: Array) -> RidgeFit:
        """Fit ``target`` (samples,) to ``rows`` (samples x columns).

        The multiple is the median of measured over known times; how far each column then departs from it is weighed
        against the errors (``regression.fit_relative``), so that few samples change little and many decide.
        """
        known = np.array(self.known)
        factor = float(np.median(target / RidgeFit(self.known).predict(rows)))
        return RidgeFit(tuple(fit_relative(rows, target, target, ridge=STRENGTH, prior=factor * known).tolist()))


def transfer(known: Iterable[FittedPredictor], rows: Rows, latency_ms: Array) -> dict[str, Transferred]:
    """Return the nearest of the known devices as a family, by its name; none if none is known.

    Nearest is the one that, times one factor, foresees best what was measured.

    Args:
        known: Predictors of other devices, or of other thread counts.
        rows: (samples x features), as ``features`` has them.
        latency_ms: (samples,), what was measured.
    """
    design = columns(rows, LATENCY)
    found: dict[str, RidgeFit] = {}
    for predictor in known:
        figure = predictor.figures[LATENCY_MS]
        base = figure.fit.base if isinstance(figure.fit, CorrectedFit) else figure.fit
        if isinstance(base, RidgeFit) and figure.names == LATENCY:
            found[f"from {predictor.device}, {predictor.threads} threads"] = base

    def apart(fit: RidgeFit) -> float:
        ratio = np.log(latency_ms / fit.predict(design))
        return float(np.mean(np.abs(ratio - np.median(ratio))))

    nearest = min(found, key=lambda name: apart(found[name]), default=None)
    return {} if nearest is None else {nearest: Transferred(found[nearest].coefficients)}
