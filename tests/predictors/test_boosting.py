from __future__ import annotations

import json

import numpy as np
import pytest

from autocompress.predictors.boosting import Steps, fit_steps

RNG = np.random.default_rng(0)
ROWS = RNG.uniform(0, 1, (200, 4))
STEP = np.where(ROWS[:, 2] > 0.6, 0.2, 0.0) - 0.08


def test_a_step_is_found_where_it_is():
    steps = fit_steps(ROWS, STEP + 0.01 * RNG.standard_normal(200))
    assert 2 in steps.columns
    below, above = steps.predict(np.array([[0.5, 0.5, 0.3, 0.5], [0.5, 0.5, 0.9, 0.5]]))
    assert above - below == pytest.approx(0.2, abs=0.04)


def test_predictions_are_the_sum_of_one_level_a_column():
    steps = Steps(columns=(0, 3), cuts=((0.5,), (0.2, 0.8)), levels=((1.0, 2.0), (10.0, 20.0, 30.0)))
    rows = np.array([[0.1, 9, 9, 0.1], [0.5, 9, 9, 0.2], [0.6, 9, 9, 0.5], [0.6, 9, 9, 0.9]])
    # A value on a cut belongs to the level up to it.
    assert steps.predict(rows).tolist() == [11.0, 11.0, 22.0, 32.0]


@pytest.mark.parametrize("samples", [16, 200])
def test_of_noise_alone_next_to_nothing_is_kept(samples: int):
    kept = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows, residual = rng.uniform(0, 1, (samples, 4)), 0.05 * rng.standard_normal(samples)
        kept.append(np.abs(fit_steps(rows, residual).predict(rows)).mean())
    assert np.mean(kept) < 0.1 * 0.05


def test_wild_samples_do_not_bend_it():
    residual = STEP + 0.01 * np.random.default_rng(1).standard_normal(200)
    calm = fit_steps(ROWS, residual).predict(ROWS)
    residual[[5, 50, 150]] += 3.0
    assert np.abs(fit_steps(ROWS, residual).predict(ROWS) - calm).mean() < 0.02


def test_rows_that_never_vary_leave_nothing_to_correct():
    assert fit_steps(np.ones((20, 3)), STEP[:20]).columns == ()


def test_json_gives_the_same_predictions_to_the_bit():
    steps = fit_steps(ROWS, STEP)
    again = Steps.from_dict(json.loads(json.dumps(steps.to_dict())))
    assert steps.columns
    assert again == steps
    assert np.array_equal(again.predict(ROWS), steps.predict(ROWS))
