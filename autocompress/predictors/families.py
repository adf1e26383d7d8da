"""The families to choose from, the simplest first, and how their fits are read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autocompress.errors import StorageError
from autocompress.predictors.boosting import Steps, fit_steps
from autocompress.predictors.corrected import Corrected, CorrectedFit, Residual
from autocompress.predictors.family import Family, Fit
from autocompress.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from autocompress.predictors.log_linear import LogLinear, LogLinearFit
from autocompress.predictors.ridge import Ridge, RidgeFit

FAMILIES: Mapping[str, Family] = {
    "ridge": Ridge(),
    "log_linear": LogLinear(),
    "ridge+boosting": Corrected(Ridge(), fit_steps),
    "log_linear+boosting": Corrected(LogLinear(), fit_steps),
    "ridge+gaussian_process": Corrected(Ridge(), fit_gaussian_process),
    "log_linear+gaussian_process": Corrected(LogLinear(), fit_gaussian_process),
}
"""Name -> family, in order of preference where they foresee equally well."""


def fit_from_dict(data: Mapping[str, Any]) -> Fit:
    """Read what ``to_dict`` of any fit of these families wrote.

    Raises:
        StorageError: It is of a kind that this version does not know.
    """
    kind = data["kind"]
    if kind == RidgeFit.kind:
        return RidgeFit.from_dict(data)
    if kind == LogLinearFit.kind:
        return LogLinearFit.from_dict(data)
    if kind == CorrectedFit.kind:
        return CorrectedFit(fit_from_dict(data["base"]), _residual_from_dict(data["residual"]))
    raise _unknown(kind, (RidgeFit.kind, LogLinearFit.kind, CorrectedFit.kind))


def _residual_from_dict(data: Mapping[str, Any]) -> Residual:
    kind = data["kind"]
    if kind == GaussianProcess.kind:
        return GaussianProcess.from_dict(data)
    if kind == Steps.kind:
        return Steps.from_dict(data)
    raise _unknown(kind, (GaussianProcess.kind, Steps.kind))


def _unknown(kind: str, known: tuple[str, ...]) -> StorageError:
    return StorageError(
        f"A fit is of the kind {kind!r}.",
        right=f"This version of AutoCompress reads {', '.join(known)}.",
        next_step="Profile the device again (autocompress profile), or restore the file.",
    )
