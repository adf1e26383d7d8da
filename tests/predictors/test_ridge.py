from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.families import fit_from_dict
from autocompress.predictors.ridge import Ridge

RNG = np.random.default_rng(0)
ROWS = RNG.uniform(0.1, 1, (30, 4)) * [1, 10, 1e6, 1e-3]
TRUTH = np.array([0.5, 2.0, 3e-6, 40.0])


def test_known_costs_are_found():
    fit = Ridge(ridge=1e-12).fit(ROWS, ROWS @ TRUTH)
    assert fit.coefficients == pytest.approx(TRUTH, rel=1e-4)
    assert fit.predict(ROWS[:3]) == pytest.approx(ROWS[:3] @ TRUTH, rel=1e-6)


def test_a_row_of_nothing_still_has_a_logarithm():
    assert np.isfinite(np.log(Ridge().fit(ROWS, ROWS @ TRUTH).predict(np.zeros((1, 4))))).all()


def test_json_gives_the_same_predictions_to_the_bit():
    fit = Ridge().fit(ROWS, ROWS @ TRUTH)
    again = fit_from_dict(json.loads(json.dumps(fit.to_dict())))
    assert again == fit
    assert np.array_equal(again.predict(ROWS), fit.predict(ROWS))
