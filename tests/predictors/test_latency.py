from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.features import features_many
from autocompress.predictors.latency import fit_median, fit_tail
from tests.predictors.synthetic import TAIL, TOKENS, fresh_shapes, samples, true_ms


def arrays(count, noise=0.0):
    some = samples(count, noise=noise)
    rows = features_many([sample.shape for sample in some], TOKENS)
    return rows, np.array([sample.latency_p50_ms for sample in some])


def fresh_errors(model):
    shapes = fresh_shapes()
    rows = features_many(shapes, TOKENS)
    return np.array([model.estimate(row).value / true_ms(shape) - 1 for row, shape in zip(rows, shapes, strict=True)])


def test_a_device_that_is_a_sum_of_work_is_learnt_from_24_samples():
    assert np.abs(fresh_errors(fit_median(*arrays(24)))).mean() < 0.01


def test_sixteen_noisy_samples_are_enough_to_be_useful():
    assert np.abs(fresh_errors(fit_median(*arrays(16, noise=0.03)))).mean() < 0.06


def test_stated_errors_are_of_the_size_of_the_noise():
    held_out = fit_median(*arrays(48, noise=0.05)).held_out
    # The mean absolute value of normal noise is sqrt(2 / pi) of its deviation, and every fit adds its own.
    assert 0.5 * 0.05 < held_out.mape < 3 * 0.05


def test_the_tail_is_the_median_times_the_usual_ratio():
    rows, p50_ms = arrays(24)
    medians = fit_median(rows, p50_ms)
    p95_ms = p50_ms * TAIL
    p95_ms[4] *= 5  # One disturbed sample does not move a median.
    tail = fit_tail(rows, p50_ms, p95_ms, medians)
    assert np.array(tail.coefficients) == pytest.approx(TAIL * np.array(medians.coefficients))
    assert tail.held_out.worst > 0.5
