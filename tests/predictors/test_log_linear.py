from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.families import fit_from_dict
from autocompress.predictors.log_linear import SAMPLES_PER_TERM, LogLinear

RNG = np.random.default_rng(0)
ROWS = np.exp(RNG.normal(0, 1, (80, 3)) + [0, 5, -5])
POWERS = np.array([0.5, 1.0, -0.25])
TARGET = 3 * np.prod(ROWS**POWERS, axis=1)


def test_known_powers_are_found():
    fit = LogLinear().fit(ROWS[:20], TARGET[:20])
    # Predictions are 3 * x**0.5 * y * z**-0.25, so each coefficient is a power times a deviation.
    assert np.array(fit.coefficients) / fit.scale.deviations == pytest.approx(POWERS, rel=1e-3)
    assert fit.predict(ROWS[20:]) == pytest.approx(TARGET[20:], rel=1e-2)


def test_a_few_wild_samples_hardly_bend_it():
    wild = TARGET.copy()
    wild[[3, 17, 40]] *= 4.0
    assert np.abs(LogLinear(products=False).fit(ROWS, wild).predict(ROWS) / TARGET - 1).max() < 0.02
    design = np.column_stack([np.ones(80), np.log(ROWS)])
    plain, *_ = np.linalg.lstsq(design, np.log(wild), rcond=None)
    assert np.abs(np.exp(design @ plain) / TARGET - 1).max() > 0.05


def test_products_are_fitted_where_samples_suffice():
    logs = np.log(ROWS)
    curved = np.exp(logs[:, 0] * logs[:, 1] / 10)
    terms = 1 + 3 + 6
    few, many = 2 * terms, 8 * terms
    assert many < SAMPLES_PER_TERM * terms
    assert len(LogLinear().fit(ROWS[:few], curved[:few]).coefficients) == 3
    rows = np.exp(RNG.normal(0, 1, (SAMPLES_PER_TERM * terms, 3)))
    target = np.exp(np.log(rows[:, 0]) * np.log(rows[:, 1]) / 10)
    fit = LogLinear().fit(rows, target)
    assert len(fit.coefficients) == 3 + 6
    assert fit.predict(rows) == pytest.approx(target, rel=1e-2)


def test_json_gives_the_same_predictions_to_the_bit():
    fit = LogLinear().fit(ROWS, TARGET)
    again = fit_from_dict(json.loads(json.dumps(fit.to_dict())))
    assert again == fit
    assert np.array_equal(again.predict(ROWS), fit.predict(ROWS))
