import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.engines import library_index, open_artifact, read_library
from autocompress.errors import MissingDependencyError, UnsupportedError
from autocompress.feeds import of_text
from autocompress.runtime.link import link
from autocompress.shape import LayerShape, ModelShape, by_block

SHAPE = ModelShape("bert", 50, 32, 24, 24, (LayerShape(2, 12, 40, *by_block(8, 4)),), classes=3)
WEIGHTS = random_weights(SHAPE)
IDS = np.random.default_rng(0).integers(0, 50, (3, 7))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(SHAPE, WEIGHTS, tmp_path_factory.mktemp("library") / "model", engine="tvm", tokens=10)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(SHAPE, WEIGHTS, tmp_path_factory.mktemp("bundle") / "model", engine="tvm", tokens=10, container="tar")


@pytest.fixture
def bundle(built, tmp_path):
    return replace(built, path=Path(shutil.copy(built.path, tmp_path)))


def logits(artifact):
    return open_artifact(artifact, threads=1)(of_text(IDS))


def test_a_linked_bundle_computes_what_the_library_does(library, bundle):
    made = link(bundle.path)
    assert made == bundle.path.with_suffix(".so")
    np.testing.assert_array_equal(logits(bundle), logits(library))
    (about, constants), (expected, values) = read_library(made), read_library(library.path)
    assert about == expected | {"tensors": about["tensors"]}
    for one, other in zip(constants, values, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {path.name for path in made.parent.iterdir()} == {"model.so", "model.tar"}


def test_a_bundle_needs_no_linker_where_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: None)
    target = {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}
    made = build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=10, target=target, container="tar")
    assert library_index(made.path)["target"] == "aarch64-linux-gnu cortex-a72"
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar"]
    with pytest.raises(MissingDependencyError, match="The linker g"):
        link(made.path)


def test_a_bundle_holds_objects_and_constants(bundle):
    with tarfile.open(bundle.path) as files:
        names = sorted(files.getnames())
    assert "constants.bin" in names and all(name.endswith(".o") for name in names if name != "constants.bin")
    assert len(names) >= 2


def test_a_bundle_that_is_not_linked_says_how_to(bundle):
    with pytest.raises(UnsupportedError, match="autocompress link .*model.tar"):
        logits(bundle)


def test_the_index_of_a_bundle_is_that_of_the_library(library, bundle):
    assert library_index(bundle.path) == library_index(library.path)
    assert {"target", "kernels", "tiles", "tokens"} < set(library_index(library.path))


def test_objects_of_another_processor_are_refused_and_leave_nothing(tmp_path):
    target = {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}
    made = build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=10, target=target, container="tar")
    with pytest.raises(UnsupportedError, match="cannot link"):
        link(made.path, linker="g++")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar"]


@pytest.mark.parametrize("name", ["model.so", "missing.tar", "broken.tar", "foreign.tar"])
def test_what_is_no_bundle_is_refused(tmp_path, name):
    (tmp_path / "model.so").write_bytes(b"")
    (tmp_path / "broken.tar").write_bytes(b"junk")
    with tarfile.open(tmp_path / "foreign.tar", "w") as files:
        files.add(__file__, "lib0.o")
    with pytest.raises(UnsupportedError, match="no bundle|not a complete"):
        link(tmp_path / name)


def test_linking_loads_neither_torch_nor_tvm(bundle):
    program = (
        "import sys; from pathlib import Path; from autocompress.runtime.link import link;"
        f"link(Path({str(bundle.path)!r})); print({{'torch', 'tvm', 'tvm_ffi'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
