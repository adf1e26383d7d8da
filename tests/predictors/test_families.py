from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.errors import StorageError
from autocompress.predictors.families import FAMILIES, fit_from_dict

RNG = np.random.default_rng(0)
ROWS = np.column_stack([np.ones(60), RNG.uniform(0.1, 1, (60, 3))])
TARGET = ROWS @ np.array([0.5, 1.0, 2.0, 3.0]) * (1 + 0.2 * (ROWS[:, 2] > 0.5))


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryFamily:
    def test_is_read_back_to_the_bit(self, name: str):
        fit = FAMILIES[name].fit(ROWS, TARGET)
        again = fit_from_dict(json.loads(json.dumps(fit.to_dict(), allow_nan=False)))
        assert again == fit
        assert np.array_equal(again.predict(ROWS), fit.predict(ROWS))

    def test_answers_positively_also_far_outside(self, name: str):
        fit = FAMILIES[name].fit(ROWS[:16], TARGET[:16])
        for rows in (np.zeros((2, 4)), ROWS * 1e6, ROWS * 1e-6):
            predicted = fit.predict(rows)
            assert np.isfinite(predicted).all()
            assert (predicted > 0).all()

    def test_does_not_care_about_the_unit_of_the_figure(self, name: str):
        thousandfold = FAMILIES[name].fit(ROWS, 1024 * TARGET).predict(ROWS)
        assert thousandfold == pytest.approx(1024 * FAMILIES[name].fit(ROWS, TARGET).predict(ROWS), rel=1e-3)


@pytest.mark.parametrize("base", ["ridge", "log_linear"])
@pytest.mark.parametrize("residual", ["boosting", "gaussian_process"])
def test_a_correction_of_few_samples_is_hardly_worse_than_none(base: str, residual: str):
    plain, corrected = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = np.column_stack([np.ones(216), rng.uniform(0.1, 1, (216, 3))])
        truth = rows @ np.array([0.5, 1.0, 2.0, 3.0])
        seen = truth[:16] * np.exp(0.03 * rng.standard_normal(16))
        for name, errors in ((base, plain), (f"{base}+{residual}", corrected)):
            predicted = FAMILIES[name].fit(rows[:16], seen).predict(rows[16:])
            errors.append(np.abs(predicted / truth[16:] - 1).mean())
    assert np.mean(corrected) < 1.1 * np.mean(plain)


def test_a_kind_of_another_version_is_refused():
    with pytest.raises(StorageError, match="'forest'.*reads ridge"):
        fit_from_dict({"kind": "forest"})
