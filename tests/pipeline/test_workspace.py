import shutil
from collections import namedtuple

import pytest

from autocompress.errors import StorageError
from autocompress.pipeline.workspace import FREE_BYTES, Workspace

Usage = namedtuple("Usage", "total used free")


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


def test_a_damaged_report_of_a_fleet_is_an_error_that_names_it(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.fleet_report() is None
    workspace.fleet.write_text("{")
    with pytest.raises(StorageError, match=r"fleet\.json cannot be read"):
        workspace.fleet_report()
