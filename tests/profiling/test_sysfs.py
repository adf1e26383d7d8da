from __future__ import annotations

from autocompress.profiling.sysfs import read_number, read_text


def test_a_file_is_read_without_its_end_of_line(tmp_path):
    (tmp_path / "file").write_text("1800000\n")
    assert read_text(tmp_path / "file") == "1800000"
    assert read_number(tmp_path / "file") == 1_800_000.0


def test_what_cannot_be_read_tells_nothing(tmp_path):
    (tmp_path / "word").write_text("<unsupported>\n")
    assert read_text(tmp_path / "absent") == ""
    assert read_text(tmp_path) == ""
    assert read_number(tmp_path / "absent") is None
    assert read_number(tmp_path / "word") is None
