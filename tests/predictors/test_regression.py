from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.regression import fit_relative

RNG = np.random.default_rng(0)
DESIGN = RNG.uniform(0, 1, (30, 4)) * [1, 10, 1e6, 1e-3]
TRUTH = np.array([0.5, 2.0, 3e-6, 0.0])
TARGET = DESIGN @ TRUTH


def test_exact_data_give_the_coefficients_back_whatever_their_scale():
    assert fit_relative(DESIGN, TARGET, TARGET, ridge=1e-12) == pytest.approx(TRUTH, rel=1e-4, abs=1e-6)


def test_no_coefficient_is_negative_even_where_least_squares_would_have_it_so():
    target = DESIGN[:, 0] - 0.05 * DESIGN[:, 1] + 1.0
    design = np.column_stack([DESIGN[:, :2], np.ones(30)])
    free, *_ = np.linalg.lstsq(design, target, rcond=None)
    assert free.min() < 0
    assert fit_relative(design, target, np.abs(target), ridge=1e-9).min() >= 0


def test_a_few_wild_samples_hardly_move_the_fit():
    wild = TARGET.copy()
    wild[[3, 17, 21]] *= 3.0
    error = np.abs(DESIGN @ fit_relative(DESIGN, wild, wild, ridge=1e-9) / TARGET - 1)
    plain, *_ = np.linalg.lstsq(DESIGN, wild, rcond=None)
    assert error.max() < 0.02
    assert np.abs(DESIGN @ plain / TARGET - 1).max() > 0.2


def test_errors_count_relative_to_the_scale():
    # One column cannot meet both targets; the optimum of sum((w x - y)^2 / y^2) is sum(x/y) / sum((x/y)^2).
    design, target = np.array([[1.0], [1.0]]), np.array([1.0, 1.1])
    ratio = (design / target[:, None]).ravel()
    assert fit_relative(design, target, target, ridge=0.0)[0] == pytest.approx(ratio.sum() / (ratio**2).sum())


def test_columns_that_are_always_zero_get_no_coefficient():
    design = np.column_stack([DESIGN, np.zeros(30)])
    assert fit_relative(design, TARGET, TARGET, ridge=1e-6)[4] == 0


def test_the_ridge_shares_between_columns_that_say_the_same():
    column = RNG.uniform(1, 2, 20)
    weights = fit_relative(np.column_stack([column, 3 * column]), column, column, ridge=1e-3)
    assert weights[0] == pytest.approx(3 * weights[1], rel=1e-3)


def test_the_ridge_pulls_to_the_prior_and_a_column_that_no_sample_has_keeps_it():
    design = np.column_stack([DESIGN, np.zeros(len(DESIGN))])
    prior = np.array([*(2 * TRUTH), 7.0])
    strong, weak = (fit_relative(design, TARGET, TARGET, ridge=ridge, prior=prior) for ridge in (1e9, 1e-12))
    assert strong == pytest.approx(prior, rel=1e-4)
    assert weak == pytest.approx([*TRUTH, 7.0], rel=1e-4, abs=1e-6)
