import hashlib
import json
from pathlib import Path

import pytest

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.compiler.tuning_log import TuningLog
from autocompress.cost import Artifact
from autocompress.errors import StorageError
from autocompress.export.package import Contents, replacing, sha256_of, write_package
from autocompress.shape import LayerShape, ModelShape, by_block


def contents(folder: Path, words: bytes = b"weights", save=lambda place: None) -> Contents:
    (folder / "made.onnx").write_bytes(words)
    artifacts = {"onnxruntime": Artifact(folder / "made.onnx", "onnxruntime", 8)}
    return Contents(artifacts, save, "plan: []\n", {"labels": ["a", "b"]})


def test_a_package_names_its_files_and_their_hashes(tmp_path):
    folder = write_package(
        tmp_path / "best", contents(tmp_path, save=lambda place: (place / "tokenizer.json").write_text("{}"))
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["artifacts"] == {"onnxruntime": "model.onnx"}
    assert manifest["labels"] == ["a", "b"]
    assert manifest["files"] == {
        name: hashlib.sha256(text).hexdigest()
        for name, text in (("config.yaml", b"plan: []\n"), ("model.onnx", b"weights"), ("tokenizer.json", b"{}"))
    }


def test_a_new_package_takes_the_place_of_the_old_one_whole(tmp_path):
    write_package(tmp_path / "best", contents(tmp_path, save=lambda place: (place / "old.txt").write_text("")))
    write_package(tmp_path / "best", contents(tmp_path, b"better"))
    assert (tmp_path / "best/model.onnx").read_bytes() == b"better"
    assert not (tmp_path / "best/old.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"best", "made.onnx"}


def test_the_old_package_stays_if_the_new_one_cannot_be_written(tmp_path):
    write_package(tmp_path / "best", contents(tmp_path))

    def full(place: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_package(tmp_path / "best", contents(tmp_path, b"better", full))
    assert (tmp_path / "best/model.onnx").read_bytes() == b"weights"
    assert {path.name for path in tmp_path.iterdir()} == {"best", "made.onnx"}


def test_nothing_appears_if_the_body_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "new") as draft:
        (draft / "half").write_text("")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("container", ["so", "tar"])
def test_the_manifest_names_target_kernels_and_tiles_of_a_compiled_library(tmp_path, container):
    shape = ModelShape("bert", 50, 32, 24, 24, (LayerShape(2, 12, 40, *by_block(8, 8)),), classes=3)
    target = {"mcpu": "haswell", "mtriple": "x86_64-linux-gnu"}
    rule = TuningLog("x86_64-linux-gnu haswell")
    artifact = build(
        shape,
        random_weights(shape),
        tmp_path / "made",
        engine="tvm",
        tokens=8,
        target=target,
        tuning=rule,
        container=container,
    )
    written = Contents({"tvm": artifact}, lambda place: None, "plan: []\n", {})
    manifest = json.loads((write_package(tmp_path / "best", written) / "manifest.json").read_text())
    assert manifest["artifacts"] == {"tvm": f"model.{container}"}
    (found,) = manifest["libraries"].values()
    assert (found["target"], found["tuning"]) == ("x86_64-linux-gnu haswell", "rule")
    tile = found["tiles"]["gemm_i8 8 x 40 x 24"]
    assert tile.startswith("6x16")  # 16 registers hold 6 x 2 vectors of 8 lanes.
    assert f"gemm_i8(activation=gelu, columns=40, depth=24, dot=pmaddwd8, rows=8, tile={tile})" in found["kernels"]


def test_a_package_without_a_compiled_library_names_none(tmp_path):
    folder = write_package(tmp_path / "best", contents(tmp_path))
    assert json.loads((folder / "manifest.json").read_text())["libraries"] == {}


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
