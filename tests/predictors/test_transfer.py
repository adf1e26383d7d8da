from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autocompress.predictors.features import LATENCY, columns, features_many
from autocompress.predictors.fit import fit
from autocompress.predictors.ridge import Ridge
from autocompress.predictors.transfer import Transferred, transfer
from tests.predictors.synthetic import TOKENS, TRUTH_MS, fitted, fresh_shapes, sample, samples, true_ms

SLOWER = {name: 4.0 * (2.0 if name == "gemm_macs_32" else 1.0) for name in TRUTH_MS}
"""The other device takes four times as long, and eight times for products in f32: it has narrow vectors."""


def slow_ms(shape):
    rows = columns(features_many([shape], TOKENS), tuple(TRUTH_MS))[0]
    return float(sum(SLOWER[name] * TRUTH_MS[name] * value for name, value in zip(TRUTH_MS, rows, strict=True)))


def on_the_slow_device(some):
    return [sample(each.shape, slow_ms(each.shape) / true_ms(each.shape)) for each in some]


def mean_error(predict, shapes):
    return float(np.mean([abs(predict(shape) / slow_ms(shape) - 1) for shape in shapes]))


def rows_of(shapes):
    return columns(features_many(shapes, TOKENS), LATENCY)


def test_a_device_that_takes_twice_as_long_for_everything_is_known_from_one_sample():
    shapes = fresh_shapes(20)
    family = Transferred(tuple(TRUTH_MS.get(name, 0.0) for name in LATENCY))
    twice = family.fit(rows_of(shapes[:1]), np.array([2 * true_ms(shapes[0])]))
    assert twice.predict(rows_of(shapes)) == pytest.approx([2 * true_ms(shape) for shape in shapes])


def test_from_few_samples_a_fit_that_starts_from_a_known_device_foresees_better_than_one_that_does_not():
    known, few = fitted(samples(60)), on_the_slow_device(samples(6))
    shapes = [each.shape for each in few]
    target = np.array([each.latency_p50_ms for each in few])
    (family,) = transfer([known], features_many(shapes, TOKENS), target).values()
    fresh = fresh_shapes(40)
    errors = [
        mean_error(lambda shape, fit=fit: fit.predict(rows_of([shape]))[0], fresh)
        for fit in (family.fit(rows_of(shapes), target), Ridge().fit(rows_of(shapes), target))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_many_samples_outweigh_the_known_device():
    known, many = fitted(samples(60)), on_the_slow_device(samples(120, seed=3))
    shapes, target = [each.shape for each in many], np.array([each.latency_p50_ms for each in many])
    (family,) = transfer([known], features_many(shapes, TOKENS), target).values()
    fit_ = family.fit(rows_of(shapes), target)
    assert mean_error(lambda shape: fit_.predict(rows_of([shape]))[0], fresh_shapes(40)) < 0.02


def test_of_several_known_devices_the_one_whose_proportions_fit_is_taken():
    alike = replace(fitted([replace(each, latency_p50_ms=3 * each.latency_p50_ms) for each in samples(40)]), device="a")
    other = replace(fitted(on_the_slow_device(samples(40))), device="b")
    some = on_the_slow_device(samples(10, seed=5))
    rows = features_many([each.shape for each in some], TOKENS)
    times = np.array([each.latency_p50_ms for each in some])
    assert list(transfer([alike, other], rows, times)) == ["from b, 2 threads"]
    assert transfer([], rows, times) == {}


def test_a_fit_says_from_which_device_it_started_and_what_else_was_tried():
    predictor = fit(
        samples(10), device="new", engine="onnxruntime", threads=1, provenance={}, known=[fitted(samples(60))]
    )
    figure = predictor.figures["latency_p50_ms"]
    assert figure.family == "from my-board, 2 threads"
    assert "ridge" in [score.family for score in figure.scores]
