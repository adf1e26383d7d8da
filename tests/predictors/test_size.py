from __future__ import annotations

from pathlib import Path

import numpy as np

from autocompress.compiler.graph import random_weights
from autocompress.compiler.onnx_graph import write_onnx
from autocompress.predictors.features import features, features_many
from autocompress.predictors.sampling import sample_shapes
from autocompress.predictors.size import fit_size
from tests.predictors.synthetic import TEACHER, TOKENS, fresh_shapes


def bytes_on_disk(shape, folder: Path) -> float:
    return float(write_onnx(shape, random_weights(shape), folder / "model.onnx").stat().st_size)


def test_fresh_onnx_models_have_the_predicted_size_within_two_percent(tmp_path):
    seen = sample_shapes(TEACHER, 12, 0)
    model = fit_size(features_many(seen, TOKENS), np.array([bytes_on_disk(shape, tmp_path) for shape in seen]))
    for shape in fresh_shapes(10):
        estimate, measured = model.estimate(features(shape, TOKENS)), bytes_on_disk(shape, tmp_path)
        assert abs(estimate.value / measured - 1) < 0.02
