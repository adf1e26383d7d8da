from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.logarithms import FARTHEST, Logarithms, logarithms

ROWS = np.exp(np.random.default_rng(0).normal(3, 2, (40, 3)))


def test_each_column_gets_mean_zero_and_deviation_one():
    values = logarithms(ROWS).of(ROWS)
    assert values.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-12)
    assert values.std(axis=0) == pytest.approx(np.ones(3))


def test_the_unit_of_a_column_does_not_matter():
    assert logarithms(ROWS * [1e3, 1, 1e-6]).of(ROWS * [1e3, 1, 1e-6]) == pytest.approx(logarithms(ROWS).of(ROWS))


def test_columns_that_stay_the_same_are_left_out():
    rows = np.column_stack([np.ones(40), ROWS[:, 0], np.zeros(40)])
    assert logarithms(rows).columns == (1,)


def test_a_column_that_is_sometimes_zero_is_moved_by_its_median_positive_value():
    column = np.array([0.0, 1.0, 3.0, 5.0])
    assert logarithms(column[:, None]).offsets == (3.0,)


def test_values_far_outside_are_cut():
    assert np.abs(logarithms(ROWS).of(ROWS * 1e40)).max() == FARTHEST


def test_json_gives_the_same_scale_to_the_bit():
    scale = logarithms(ROWS)
    assert Logarithms.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
