from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.cost import FIGURES
from autocompress.errors import DeviceError
from autocompress.predictors.features import FEATURES, features
from autocompress.predictors.fit import COMPOSED
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.sampling import Variety, candidates, sample_shapes
from autocompress.shape import BITS
from tests.predictors.synthetic import TEACHER, TOKENS, as_stored, fitted, sample, samples, true_bytes


def test_a_fit_keeps_its_samples_their_ranges_and_where_they_come_from():
    some = samples(20)
    predictor = fitted(some)
    assert predictor.samples == tuple(some)
    assert set(predictor.figures) == set(FIGURES)
    assert predictor.provenance["date"] == "2025-01-31"
    column = [features(sample.shape, sample.tokens)[FEATURES.index("gemm_macs_32")] for sample in some]
    assert predictor.ranges["gemm_macs_32"] == (min(column), max(column))


def test_too_few_samples_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(DeviceError) as caught:
        fitted(samples(FEWEST_SAMPLES - 1))
    assert str(FEWEST_SAMPLES) in caught.value.right
    assert fitted(samples(FEWEST_SAMPLES)).held_out["latency_p50_ms"].samples == FEWEST_SAMPLES


def test_errors_at_corners_do_not_decide_the_width_of_the_intervals():
    some = samples(40, noise=0.01)
    noisy = [replace(each, latency_p50_ms=1.5 * each.latency_p50_ms, drawn=False) for each in some[:4]]
    widths = [
        fitted([*noisy, *some[4:]]).figures["latency_p50_ms"].intervals.half_width,
        fitted([*(replace(each, drawn=True) for each in noisy), *some[4:]])
        .figures["latency_p50_ms"]
        .intervals.half_width,
    ]
    assert widths[0] < 0.5 * widths[1]


def test_the_families_that_were_compared_are_recorded():
    figure = fitted(samples(40)).figures["latency_p50_ms"]
    assert figure.family in [score.family for score in figure.scores]
    assert [score.family for score in figure.scores] == list(COMPOSED)


@pytest.mark.parametrize("engine", ["onnxruntime", "tvm"])
def test_sizes_are_foreseen_whether_an_engine_stores_three_bits_or_four_for_them(engine):
    def stored(shape):
        return 2000 + 2500 * len(shape.layers) + true_bytes(as_stored(shape, engine))

    variety = Variety(bits=BITS)
    shapes = sample_shapes(TEACHER, 40, 0, variety)
    predictor = fitted([replace(sample(shape), size_bytes=stored(shape)) for shape in shapes])
    fresh = [shape for shape in candidates(TEACHER, 60, 7, variety) if any(3 in layer.bits for layer in shape.layers)]
    assert len(fresh) > 10
    known = predictor.predict_many(fresh, TOKENS)
    foreseen = known.figures["size_bytes"][:, 0][known.known]
    actual = [stored(shape) for shape, inside in zip(fresh, known.known, strict=True) if inside]
    assert foreseen == pytest.approx(actual, rel=0.005)
