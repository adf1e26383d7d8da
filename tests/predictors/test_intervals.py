from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.intervals import COVERAGE, FEWEST_SAMPLES, held_out, jackknife_plus, log_errors


def test_held_out_errors_are_relative_to_the_measured_value():
    errors = held_out(np.array([1.125, 1.875, 3.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert errors.mape == pytest.approx((0.125 + 0.0625 + 0.0 + 0.25) / 4)
    assert errors.worst == pytest.approx(0.25)
    assert errors.within_10_percent == 0.5
    assert errors.samples == 4


def test_twice_and_half_are_equally_far_off():
    assert log_errors(np.array([2.0, 0.5]), np.array([1.0, 1.0])) == pytest.approx([np.log(2)] * 2)


def test_the_interval_takes_the_rank_that_the_finite_sample_needs():
    errors = np.arange(1, 20) / 100
    low, high = jackknife_plus(np.full(19, 10.0), errors)
    # ceil(0.9 * 20) = 18th of 19 upper ends, floor(0.1 * 20) = 2nd of the lower ends.
    assert high == pytest.approx(10 * np.exp(0.18))
    assert low == pytest.approx(10 * np.exp(-0.18))


def test_the_interval_widens_where_the_fits_disagree():
    errors = np.full(19, 0.01)
    agreeing = jackknife_plus(np.full(19, 10.0), errors)
    differing = jackknife_plus(np.linspace(8, 12, 19), errors)
    assert differing[0] < agreeing[0] < agreeing[1] < differing[1]


def test_too_few_samples_promise_nothing():
    few = FEWEST_SAMPLES - 1
    assert jackknife_plus(np.ones(few), np.zeros(few)) == (0.0, float("inf"))
    assert np.isfinite(jackknife_plus(np.ones(FEWEST_SAMPLES), np.zeros(FEWEST_SAMPLES))).all()


def test_intervals_hold_about_the_share_that_they_state():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        # Fitting a constant to log-normal values: the fit without one is the mean logarithm of the others.
        logs = rng.normal(0, 0.1, 20)
        without = np.exp((logs.sum() - logs) / 19)
        low, high = jackknife_plus(without, log_errors(without, np.exp(logs)))
        inside += low <= np.exp(rng.normal(0, 0.1)) <= high
    # Three standard deviations of 2000 draws are 0.02.
    assert inside / 2000 > COVERAGE - 0.02
    assert inside / 2000 < 0.97
