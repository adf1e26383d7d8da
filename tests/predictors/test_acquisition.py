from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.acquisition import gain, most_telling
from autocompress.predictors.features import LATENCY, columns, features_many
from autocompress.predictors.sampling import candidates, corners
from tests.predictors.synthetic import TEACHER, TOKENS, true_ms

RNG = np.random.default_rng(0)
KNOWN, NEW, ASKED = (RNG.uniform(0, 1, (count, 3)) for count in (5, 7, 50))


def mean_variance(known, *, ridge=1e-3):
    size = np.sqrt(np.mean(ASKED**2, axis=0))
    rows, asked = known / size, ASKED / size
    covariance = np.linalg.inv(rows.T @ rows + ridge * np.eye(3))
    return np.mean([row @ covariance @ row for row in asked])


def test_the_gain_is_the_share_by_which_a_further_row_lowers_the_mean_variance():
    before = mean_variance(KNOWN)
    after = [mean_variance(np.vstack([KNOWN, row])) for row in NEW]
    assert gain(KNOWN, NEW, ASKED, ridge=1e-3) == pytest.approx([1 - each / before for each in after], rel=1e-9)


def test_a_row_of_a_column_that_was_never_seen_tells_more_than_one_that_was_seen_often():
    known = np.array([[1.0, 0.0]] * 5)
    first, second = gain(known, np.eye(2), np.ones((4, 2)) * [[1.0, 0.5]], ridge=1e-3)
    assert second > 10 * first


def test_a_shape_with_the_bits_that_no_sample_had_is_the_most_telling():
    pool = candidates(TEACHER, 32, 1)
    all_f32 = [shape for shape in corners(TEACHER) if {layer.ffn_bits for layer in shape.layers} == {32}]
    taken = [shape for shape in candidates(TEACHER, 64, 2) if _bits(shape) == {32}] + all_f32
    chosen = most_telling(pool, pool, [(taken, np.array([true_ms(shape) for shape in taken]))], TOKENS)
    assert _bits(chosen) != {32}


def test_samples_chosen_so_foresee_better_than_as_many_drawn_at_random():
    pool, noise = candidates(TEACHER, 64, 1), np.random.default_rng(1)
    fresh = candidates(TEACHER, 100, 7)

    def error(shapes):
        from autocompress.predictors.ridge import Ridge

        rows, asked = (columns(features_many(some, TOKENS), LATENCY) for some in (shapes, fresh))
        measured = np.array([true_ms(shape) for shape in shapes]) * np.exp(0.02 * noise.standard_normal(len(shapes)))
        return np.mean(np.abs(Ridge().fit(rows, measured).predict(asked) / [true_ms(shape) for shape in fresh] - 1))

    def chosen(count):
        shapes = list(corners(TEACHER))
        while len(shapes) < count:
            left = [shape for shape in pool if shape not in shapes]
            times = np.array([true_ms(shape) for shape in shapes])
            shapes.append(most_telling(left, pool, [(shapes, times)], TOKENS))
        return shapes

    drawn = [error([*corners(TEACHER), *candidates(TEACHER, 12, seed)]) for seed in range(20, 40)]
    told = chosen(len(corners(TEACHER)) + 12)
    assert np.mean([error(told) for _ in range(20)]) < np.mean(drawn)


def _bits(shape):
    return {bits for layer in shape.layers for bits in (layer.attention_bits, layer.ffn_bits)}
