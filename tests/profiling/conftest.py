from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.compiler.graph import random_weights
from autocompress.compiler.onnx_graph import write_onnx
from autocompress.cost import Artifact
from autocompress.shape import LayerShape, ModelShape

TINY = ModelShape("bert", 50, 16, 32, 32, (LayerShape(2, 8, 64),), 3)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small encoder that reads 8 tokens of a vocabulary of 50."""
    path = tmp_path_factory.mktemp("profiling") / "tiny.onnx"
    return Artifact(write_onnx(TINY, random_weights(TINY), path), "onnxruntime", 8)


@pytest.fixture
def broken(tmp_path: Path) -> Artifact:
    """The same with weights that are not finite."""
    weights = dict(random_weights(TINY))
    weights["head.classifier.bias"] = weights["head.classifier.bias"] * float("nan")
    return Artifact(write_onnx(TINY, weights, tmp_path / "broken.onnx"), "onnxruntime", 8)
