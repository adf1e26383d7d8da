import shutil
from collections import namedtuple

import pytest

from autocompress.errors import StorageError
from autocompress.pipeline.workspace import FREE_BYTES, Workspace, replace_text

Usage = namedtuple("Usage", "total used free")


def test_a_file_is_replaced_whole(tmp_path):
    replace_text(tmp_path / "file", "one")
    replace_text(tmp_path / "file", "two é")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "two é"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_there_stays_if_the_disk_is_full_halfway(tmp_path, monkeypatch):
    replace_text(tmp_path / "file", "whole")

    def full(path, text, **options):
        path.write_bytes(text.encode()[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        replace_text(tmp_path / "file", "other")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"whole"}


def test_a_run_needs_free_space_and_is_told_how_much(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, FREE_BYTES - 1))
    with pytest.raises(StorageError, match=f"{FREE_BYTES / 2**20:.0f} MiB free"):
        Workspace(tmp_path / "run").create()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, FREE_BYTES))
    Workspace(tmp_path / "run").create()
    assert (tmp_path / "run/students").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"{tmp_path}/file/run"):
        Workspace(tmp_path / "file" / "run").create()
