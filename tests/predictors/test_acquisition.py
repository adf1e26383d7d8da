from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.acquisition import gain, most_telling
from autocompress.predictors.features import LATENCY, columns, features_many
from autocompress.predictors.sampling import candidates, corners
from tests.predictors.synthetic import TEACHER, TOKENS, true_ms

RNG = np.random.default_rng(0)
KNOWN, NEW, ASKED = (RNG.uniform(0, 1, (count, 3)) for count in (5, 7, 50))


def mean_variance(known, asked, *, ridge=1e-3):
    size = np.sqrt(np.mean(asked**2, axis=0))
    rows, asked = (each[:, size > 0] / size[size > 0] for each in (known, asked))
    covariance = np.linalg.inv(rows.T @ rows + ridge * np.eye(rows.shape[1]))
    return np.mean([row @ covariance @ row for row in asked])


def test_the_gain_is_the_share_by_which_a_further_row_lowers_the_mean_variance():
    before = mean_variance(KNOWN, ASKED)
    after = [mean_variance(np.vstack([KNOWN, row]), ASKED) for row in NEW]
    assert gain(KNOWN, NEW, ASKED, ridge=1e-3) == pytest.approx([1 - each / before for each in after], rel=1e-9)


def test_a_row_of_a_column_that_was_never_seen_tells_more_than_one_that_was_seen_often():
    known = np.array([[1.0, 0.0]] * 5)
    first, second = gain(known, np.eye(2), np.ones((4, 2)) * [[1.0, 0.5]], ridge=1e-3)
    assert second > 10 * first


def test_a_shape_with_the_bits_that_no_sample_had_is_the_most_telling():
    pool = candidates(TEACHER, 32, 1)
    all_f32 = [shape for shape in corners(TEACHER) if {layer.ffn_in_bits for layer in shape.layers} == {32}]
    taken = [shape for shape in candidates(TEACHER, 64, 2) if _bits(shape) == {32}] + all_f32
    chosen = most_telling(pool, pool, [(taken, np.array([true_ms(shape) for shape in taken]))], TOKENS)
    assert _bits(chosen) != {32}


def test_samples_chosen_so_leave_less_variance_than_as_many_drawn_at_random():
    pool, first = candidates(TEACHER, 64, 1), [*corners(TEACHER), *candidates(TEACHER, 4, 2)]

    def relative(shapes):
        return columns(features_many(shapes, TOKENS), LATENCY) / np.array([[true_ms(shape)] for shape in shapes])

    chosen = list(first)
    for _ in range(4):
        times = np.array([true_ms(shape) for shape in chosen])
        chosen.append(most_telling([each for each in pool if each not in chosen], pool, [(chosen, times)], TOKENS))
    drawn = [[*first, *candidates(TEACHER, 4, seed)] for seed in range(20, 40)]
    asked = relative(pool)
    variances = [mean_variance(relative(some), asked) for some in (chosen, *drawn)]
    assert variances[0] < min(variances[1:])


def _bits(shape):
    return {bits for layer in shape.layers for bits in layer.bits}
