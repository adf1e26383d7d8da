from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.boosting import Steps
from autocompress.predictors.corrected import Corrected
from autocompress.predictors.ridge import Ridge

ROWS = np.random.default_rng(0).uniform(0.1, 1, (30, 3))
TARGET = ROWS @ np.array([1.0, 2.0, 3.0])


def test_the_residual_is_fitted_to_the_logarithm_of_measured_over_predicted():
    seen = []

    def remember(rows: np.ndarray, residual: np.ndarray) -> Steps:
        seen.append((rows, residual))
        return Steps(columns=(0,), cuts=((0.5,),), levels=((0.0, np.log(2.0)),))

    fit = Corrected(Ridge(), remember).fit(ROWS, TARGET)
    base = Ridge().fit(ROWS, TARGET).predict(ROWS)
    assert seen[0][1] == pytest.approx(np.log(TARGET / base))
    # Twice the base where the residual is log 2.
    assert fit.predict(ROWS) == pytest.approx(base * np.where(ROWS[:, 0] > 0.5, 2, 1))
