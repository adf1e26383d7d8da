from __future__ import annotations

import numpy as np
import pytest

from autocompress.predictors.features import MEMORY, features, features_many
from autocompress.predictors.memory import fit_memory
from tests.predictors.synthetic import BASE_BYTES, ENGINE_BYTES, TOKENS, fresh_shapes, samples, true_bytes


def test_memory_is_the_process_the_engine_and_the_weights():
    some = samples(24)
    model = fit_memory(
        features_many([sample.shape for sample in some], TOKENS),
        np.array([float(sample.peak_memory_bytes) for sample in some]),
        np.array([float(sample.base_memory_bytes) for sample in some]),
    )
    assert model.offset == BASE_BYTES
    assert model.names == MEMORY
    for shape in fresh_shapes():
        measured = BASE_BYTES + ENGINE_BYTES + true_bytes(shape)
        assert model.estimate(features(shape, TOKENS)).value == pytest.approx(measured, rel=0.002)
