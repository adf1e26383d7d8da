from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from autocompress.predictors.boosting import fit_steps
from autocompress.predictors.corrected import Corrected
from autocompress.predictors.families import FAMILIES
from autocompress.predictors.ridge import Ridge, RidgeFit
from autocompress.predictors.selection import choose, foresee, select


def made(samples: int, truth: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([np.ones(samples), rng.uniform(0.1, 1, (samples, 3))])
    return rows, truth(rows) * np.exp(0.01 * rng.standard_normal(samples))


def total(rows: np.ndarray) -> np.ndarray:
    return rows @ np.array([0.5, 1.0, 2.0, 3.0])


def powers(rows: np.ndarray) -> np.ndarray:
    return rows[:, 1] * rows[:, 2] ** 2 / rows[:, 3]


def stepped(rows: np.ndarray) -> np.ndarray:
    return total(rows) * (1 + 0.3 * (rows[:, 3] > 0.6))


def wavy(rows: np.ndarray) -> np.ndarray:
    return total(rows) * (1 + 0.3 * np.tanh(6 * (rows[:, 1] - rows[:, 2])))


@pytest.mark.parametrize(
    ("truth", "families"),
    [
        (total, {"ridge"}),
        (powers, {"log_linear"}),
        (stepped, {"ridge+boosting"}),
        (wavy, {"ridge+gaussian_process", "log_linear+gaussian_process"}),
    ],
)
def test_the_family_is_chosen_by_which_the_data_were_made(truth: Callable, families: set[str]):
    rows, target = made(100, truth)
    foreseen = foresee(FAMILIES, rows, target, folds=5, repeats=1)
    assert choose(foreseen, target).family in families


class Remembering:
    """Predicts the greatest target that it was fitted on."""

    def fit(self, rows: np.ndarray, target: np.ndarray) -> RidgeFit:
        return RidgeFit((float(target.max()),))


def test_no_sample_is_foreseen_by_a_fit_that_saw_it():
    target = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    foreseen = foresee({"greatest": Remembering()}, np.ones((5, 1)), target, folds=5, repeats=2)["greatest"]
    assert foreseen.tolist() == [[100, 100, 100, 100, 4]] * 2


def test_samples_are_cut_anew_in_each_repeat_but_alike_for_each_family_and_seed():
    rows, target = made(30, total)
    first = foresee({"one": Ridge(), "two": Ridge()}, rows, target, folds=3)
    assert np.array_equal(first["one"], first["two"])
    assert not np.array_equal(first["one"][0], first["one"][1])
    assert np.array_equal(foresee({"one": Ridge()}, rows, target, folds=3)["one"], first["one"])
    assert not np.array_equal(foresee({"one": Ridge()}, rows, target, folds=3, seed=1)["one"], first["one"])


def test_the_simpler_of_two_is_taken_unless_it_is_worse_by_more_than_a_standard_error():
    target = np.ones(4)
    # Differences -0.1, 0.1, 0.1, 0.1 (mean 0.05, standard error 0.1 / 2): within one error. Then 0.2 for the last.
    simple, better = np.array([[1.0, 1.2, 1.2, 1.2]]), np.array([[1.1, 1.1, 1.1, 1.1]])
    selection = choose({"simple": simple, "better": better}, target)
    assert selection.family == "simple"
    assert [score.mape for score in selection.scores] == pytest.approx([0.15, 0.1])
    assert selection.scores[0].excess == pytest.approx(0.05)
    assert selection.scores[0].standard_error == pytest.approx(0.1 / 2)
    worse = choose({"simple": simple + [[0.11, 0, 0, 0]], "better": better}, target)
    assert worse.family == "better"
    assert worse.out_of_fold == ((1.1, 1.1, 1.1, 1.1),)


def test_errors_of_samples_that_do_not_count_have_no_say():
    simple, better = np.array([[9.0, 1.0, 1.0]]), np.array([[1.0, 1.1, 1.1]])
    assert choose({"simple": simple, "better": better}, np.ones(3)).scores[0].mape > 1
    selection = choose({"simple": simple, "better": better}, np.ones(3), counts=np.array([False, True, True]))
    assert selection.family == "simple"
    assert selection.scores[0].mape == 0


def test_every_score_is_kept_in_the_order_of_preference():
    rows, target = made(30, total)
    families = {"ridge": Ridge(), "ridge+boosting": Corrected(Ridge(), fit_steps)}
    assert [score.family for score in select(families, rows, target).scores] == list(families)
