from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Artifact
from autocompress.shape import LayerShape, ModelShape
from tests.boards.agents import agent

TINY = ModelShape("bert", 50, 16, 32, 32, (LayerShape(2, 8, 64),), 3)
LARGE = ModelShape("bert", 20_000, 16, 128, 128, (LayerShape(2, 64, 512),), 3)
"""Of 10 MB, so that it is sent in several parts."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("tiny") / "model"
    return build(TINY, random_weights(TINY), path, engine="onnxruntime", tokens=8)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("large") / "model"
    return build(LARGE, random_weights(LARGE), path, engine="onnxruntime", tokens=8)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory):
    """An agent that a file's tests share."""
    with agent(tmp_path_factory.mktemp("board")) as started:
        yield started


@pytest.fixture
def fresh(tmp_path: Path):
    """An agent to which anything may be done."""
    with agent(tmp_path / "board") as started:
        yield started
