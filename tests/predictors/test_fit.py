from __future__ import annotations

import pytest

from autocompress.errors import DeviceError
from autocompress.predictors.features import FEATURES, features
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.predictor import FIGURES
from tests.predictors.synthetic import fitted, samples


def test_a_fit_keeps_its_samples_their_ranges_and_where_they_come_from():
    some = samples(20)
    predictor = fitted(some)
    assert predictor.samples == tuple(some)
    assert set(predictor.models) == set(FIGURES)
    assert predictor.provenance["date"] == "2025-01-31"
    column = [features(sample.shape, sample.tokens)[FEATURES.index("gemm_macs_32")] for sample in some]
    assert predictor.ranges["gemm_macs_32"] == (min(column), max(column))


def test_too_few_samples_are_an_error_that_says_how_many_are_needed():
    with pytest.raises(DeviceError) as caught:
        fitted(samples(FEWEST_SAMPLES - 1))
    assert str(FEWEST_SAMPLES) in caught.value.right
    assert fitted(samples(FEWEST_SAMPLES)).held_out["latency_p50_ms"].samples == FEWEST_SAMPLES
