import hashlib
import json
from pathlib import Path

import pytest

from autocompress.cost import Artifact
from autocompress.errors import StorageError
from autocompress.export.package import Contents, replacing, sha256_of, write_package


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


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
