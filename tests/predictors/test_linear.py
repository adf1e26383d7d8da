from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.features import features_many
from autocompress.predictors.linear import Linear, fit_linear
from autocompress.predictors.sampling import sample_shapes
from tests.predictors.synthetic import TEACHER, TOKENS

ROWS = features_many(sample_shapes(TEACHER, 20, 0), TOKENS)
NAMES = ("constant", "layers", "weight_bytes")
MEASURED = 7.0 + np.array([2.0 + 3.0 * row[1] for row in ROWS])


def test_the_offset_is_no_part_of_the_fit():
    model = fit_linear(ROWS, MEASURED, NAMES, ridge=1e-12, offset=7.0)
    assert model.coefficients == pytest.approx((2.0, 3.0, 0.0), abs=1e-4)
    estimate = model.estimate(ROWS[0])
    assert estimate.value == pytest.approx(MEASURED[0], rel=1e-4)
    assert estimate.low <= estimate.value <= estimate.high


def test_held_out_errors_come_from_fits_that_did_not_see_the_sample():
    noisy = MEASURED * np.exp(0.1 * np.random.default_rng(0).standard_normal(20))
    model = fit_linear(ROWS, noisy, NAMES, ridge=1e-9)
    others = np.arange(20) != 3
    alone = fit_linear(ROWS[others], noisy[others], NAMES, ridge=1e-9)
    assert model.without_one[3] == pytest.approx(alone.coefficients)
    assert model.errors[3] == pytest.approx(abs(np.log(noisy[3] / alone.estimate(ROWS[3]).value)))


def test_a_fit_survives_json_exactly():
    model = fit_linear(ROWS, MEASURED, NAMES, ridge=1e-9)
    assert Linear.from_dict(json.loads(json.dumps(model.to_dict()))) == model
