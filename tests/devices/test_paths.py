from pathlib import Path

import pytest

from autocompress.devices import paths


def test_the_users_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    assert paths.home() == tmp_path
    monkeypatch.setenv("AUTOCOMPRESS_HOME", "")
    assert paths.home() == Path.home() / ".autocompress"


def test_the_users_folder_comes_first_then_the_checkout_then_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "checkout" / "autocompress"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "_PACKAGE", package)
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path / "home"))
    assert paths.data_folders("latency_models") == (
        tmp_path / "home" / "latency_models",
        package.parent / "latency_models",
        package / "_data" / "latency_models",
    )


def test_an_installed_package_does_not_look_beside_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "autocompress"
    package.mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert package.parent / "device_profiles" not in paths.data_folders("device_profiles")


def test_a_file_is_replaced_whole(tmp_path):
    paths.write_text(tmp_path / "file", "one")
    paths.write_text(tmp_path / "file", "two é")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "two é"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_there_stays_if_the_disk_is_full_halfway(tmp_path, monkeypatch):
    paths.write_text(tmp_path / "file", "whole")

    def full(path, text, **options):
        path.write_bytes(text.encode()[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        paths.write_text(tmp_path / "file", "other")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"whole"}
