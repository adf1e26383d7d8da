from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.intervals import (
    COVERAGE,
    FEWEST_SAMPLES,
    Conformal,
    conformal,
    held_out,
)


def test_held_out_errors_are_relative_to_the_measured_value():
    errors = held_out(np.array([1.125, 1.875, 3.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert errors.mape == pytest.approx((0.125 + 0.0625 + 0.0 + 0.25) / 4)
    assert errors.worst == pytest.approx(0.25)
    assert errors.within_10_percent == 0.5
    assert errors.samples == 4


def errors_of(*logs: float) -> np.ndarray:
    return np.exp(np.array([logs]))


def test_the_width_weighs_the_two_ranks_that_the_coverage_falls_between():
    # 0.9 * (12 + 1) = 11.7: between the 11th and the 12th of 12 errors.
    interval = conformal(errors_of(*np.arange(1, 13) / 100), np.ones(12))
    assert interval.half_width == pytest.approx(0.3 * 0.11 + 0.7 * 0.12)
    low, high = interval.bounds(np.array([10.0, 20.0]))
    assert high == pytest.approx(np.array([10, 20]) * np.exp(interval.half_width))
    assert low * high == pytest.approx([100, 400])


def test_a_sample_counts_once_with_its_median_error_over_repeats():
    wild = np.concatenate([errors_of(*np.arange(1, 20) / 100)] * 2 + [errors_of(*np.full(19, 5.0))])
    assert conformal(wild, np.ones(19)).half_width == pytest.approx(0.18)


def test_samples_that_are_not_drawn_like_new_ones_do_not_widen_it():
    logs = np.concatenate([np.full(5, 3.0), np.arange(1, 20) / 100])
    interval = conformal(errors_of(*logs), np.ones(24), counts=np.arange(24) >= 5)
    assert (interval.half_width, interval.samples) == (pytest.approx(0.18), 19)


def test_difficult_samples_get_wider_intervals():
    difficulty = np.tile([1.0, 3.0], 10)
    interval = conformal(errors_of(*(0.01 * difficulty)), np.ones(20), difficulty=difficulty)
    low, high = interval.bounds(np.ones(2), np.array([1.0, 3.0]))
    assert np.log(high) == pytest.approx([0.01, 0.03])


def test_an_interval_of_too_few_samples_promises_nothing_and_is_kept_as_json():
    few = conformal(errors_of(*np.zeros(FEWEST_SAMPLES - 1)), np.ones(FEWEST_SAMPLES - 1))
    assert few.bounds(np.ones(1)) == (0.0, np.inf)
    assert np.isfinite(conformal(errors_of(*np.zeros(FEWEST_SAMPLES)), np.ones(FEWEST_SAMPLES)).half_width)
    for interval in (few, conformal(errors_of(*np.arange(30) / 70), np.ones(30))):
        assert Conformal.from_dict(json.loads(json.dumps(interval.to_dict(), allow_nan=False))) == interval


@pytest.mark.parametrize("samples", [16, 24, 50, 200])
def test_new_exchangeable_samples_lie_inside_as_often_as_stated(samples: int):
    rng = np.random.default_rng(samples)
    widths = [conformal(np.exp(rng.normal(0, 0.1, (1, samples))), np.ones(samples)).half_width for _ in range(4000)]
    held = np.mean(np.abs(rng.normal(0, 0.1, 4000)) <= widths)
    # Four binomial standard deviations of 4000 draws, and what errors' falling density adds between two ranks.
    error = 4 * np.sqrt(COVERAGE * (1 - COVERAGE) / 4000)
    assert COVERAGE - error <= held <= COVERAGE + error + 0.3 / (samples + 1)
