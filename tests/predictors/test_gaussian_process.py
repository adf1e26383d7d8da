from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal

from autocompress.predictors.gaussian_process import (
    CHUNK,
    MOST_SAMPLES,
    GaussianProcess,
    Hyperparameters,
    fit_gaussian_process,
    negative_log_likelihood,
    outlier_variance,
    posterior_weights,
)
from autocompress.predictors.logarithms import logarithms

RNG = np.random.default_rng(0)
ROWS = np.exp(RNG.uniform(-1.5, 1.5, (120, 3)))
LOGS = np.log(ROWS)
PATTERN = 0.1 * np.sin(2 * LOGS[:, 0])


def kernel(first: np.ndarray, second: np.ndarray, at: Hyperparameters) -> np.ndarray:
    squares = ((first[:, None, :] - second[None, :, :]) ** 2).mean(axis=2)
    return at.signal**2 * np.exp(-squares / (2 * at.length**2))


def test_the_mean_is_that_of_the_closed_form_posterior():
    at = Hyperparameters(length=0.8, signal=0.1, noise=0.02)
    residual = PATTERN[:20] + 0.02 * RNG.standard_normal(20)
    extra = RNG.choice([0.0, 0.01], 20)
    scale = logarithms(ROWS[:20])
    places, new = scale.of(ROWS[:20]), scale.of(ROWS[20:40])
    weights = posterior_weights(places, residual, extra, at)
    process = GaussianProcess(scale, at.length * 3**0.5, tuple(map(tuple, places.tolist())), tuple(weights.tolist()))
    covariance = kernel(places, places, at) + np.diag(at.noise**2 + extra)
    expected = kernel(new, places, at) @ np.linalg.solve(covariance, residual)
    assert process.predict(ROWS[20:40]) == pytest.approx(expected, abs=1e-5)


def test_the_likelihood_is_that_of_the_joint_normal_distribution_and_its_slope_is_right():
    at = Hyperparameters(length=0.8, signal=0.1, noise=0.02)
    places, residual, extra = LOGS[:15], PATTERN[:15], RNG.choice([0.0, 0.01], 15)
    distances = ((places[:, None, :] - places[None, :, :]) ** 2).mean(axis=2)
    covariance = kernel(places, places, at) + np.diag(at.noise**2 + extra)
    density = multivariate_normal(np.zeros(15), covariance).logpdf(residual)
    where = np.log([at.length, at.signal, at.noise])
    value, slope = negative_log_likelihood(where, distances, residual, extra)
    assert value + 7.5 * np.log(2 * np.pi) == pytest.approx(-density, rel=1e-6)
    numeric = approx_fprime(where, lambda x: negative_log_likelihood(x, distances, residual, extra)[0], 1e-6)
    assert slope == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_smooth_pattern_is_found():
    residual = PATTERN + 0.005 * RNG.standard_normal(120)
    process = fit_gaussian_process(ROWS[:100], residual[:100])
    left = process.predict(ROWS[100:]) - PATTERN[100:]
    assert np.sqrt(np.mean(left**2)) < 0.4 * np.sqrt(np.mean(PATTERN[100:] ** 2))


@pytest.mark.parametrize("samples", [16, 100])
def test_of_noise_alone_next_to_nothing_is_kept(samples: int):
    kept = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows, residual = np.exp(rng.normal(0, 1, (samples, 3))), 0.05 * rng.standard_normal(samples)
        kept.append(np.abs(fit_gaussian_process(rows, residual).predict(rows)).mean())
    assert np.mean(kept) < 0.1 * 0.05


def test_wild_samples_do_not_bend_it():
    residual = PATTERN + 0.005 * RNG.standard_normal(120)
    calm = fit_gaussian_process(ROWS, residual).predict(ROWS)
    wild = residual.copy()
    wild[[5, 50, 90]] += 2.0
    assert np.abs(fit_gaussian_process(ROWS, wild).predict(ROWS) - calm).mean() < 0.01
    assert np.flatnonzero(outlier_variance(wild)).tolist() == [5, 50, 90]


def test_of_thousands_of_samples_only_so_many_are_kept():
    rows = np.exp(RNG.uniform(-1.5, 1.5, (2000, 3)))
    process = fit_gaussian_process(rows, 0.1 * np.sin(2 * np.log(rows[:, 0])))
    assert len(process.points) == len(process.weights) == MOST_SAMPLES
    assert np.abs(process.predict(ROWS) - PATTERN).mean() < 0.2 * np.abs(PATTERN).mean()


def test_rows_that_never_vary_leave_nothing_to_correct():
    assert not fit_gaussian_process(np.ones((20, 3)), PATTERN[:20]).predict(ROWS).any()


def test_rows_beyond_one_chunk_and_none_at_all_are_answered():
    process = fit_gaussian_process(ROWS, PATTERN)
    many = np.tile(ROWS, (CHUNK // 100, 1))
    assert len(many) > CHUNK
    assert process.predict(many) == pytest.approx(np.tile(process.predict(ROWS), CHUNK // 100), abs=1e-5)
    assert process.predict(ROWS[:0]).shape == (0,)


def test_json_gives_the_same_predictions_to_the_bit():
    process = fit_gaussian_process(ROWS, PATTERN)
    again = GaussianProcess.from_dict(json.loads(json.dumps(process.to_dict())))
    assert any(process.weights)
    assert again == process
    assert np.array_equal(again.predict(ROWS), process.predict(ROWS))
