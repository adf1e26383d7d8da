from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autocompress.errors import MissingDependencyError, SourceError
from autocompress.evaluation.tables import Document, read_documents


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, *, text: str | None = None, label: str | None = None, skip_rows: int = 0) -> list[Document]:
    return read_documents(path, text=text, label=label, skip_rows=skip_rows)


class TestFormats:
    def test_csv_with_quoted_commas_quotes_and_line_breaks(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", 'text,label\n"one, ""two""\nthree",x\nfour,y\n')
        assert read(path) == [('one, "two"\nthree', "x"), ("four", "y")]

    def test_tab_separated_with_quotes_that_are_plain_characters(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.tsv", 'sentence\tlabel\n"half a quote\t1\nit\'s "fine"\t0\n')
        assert read(path) == [('"half a quote', "1"), ('it\'s "fine"', "0")]

    def test_tab_separated_with_quotes_that_enclose_line_breaks(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.tsv", 'label\ttext\nx\t"one\ntwo"\ny\tthree\n')
        assert read(path) == [("one\ntwo", "x"), ("three", "y")]

    def test_rows_after_the_header_can_be_skipped(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.tab", "Category\tText\nd\tstring\nclass\t\n\nearn\tprofit rose\nacq\tbought\n")
        assert read(path, skip_rows=2) == [("profit rose", "earn"), ("bought", "acq")]

    def test_carriage_returns_and_a_byte_order_mark_are_no_content(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", b"\xef\xbb\xbftext,label\r\na,x\r\nb,y\r\n")
        assert read(path) == [("a", "x"), ("b", "y")]

    def test_json_lines(self, tmp_path: Path) -> None:
        rows = [{"content": "größer", "class": 1, "id": None}, {"content": "b", "class": 0, "id": 3}]
        path = write(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
        assert read(path) == [("größer", "1"), ("b", "0")]

    def test_parquet(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1, 0]}), path)
        assert read(path) == [("a", "1"), ("b", "0")]
        path.write_bytes(b"PAR1 but broken")
        with pytest.raises(SourceError, match="intact parquet"):
            read(path)

    def test_parquet_needs_an_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
        with pytest.raises(MissingDependencyError, match=r"autocompress\[parquet\]"):
            read(write(tmp_path, "a.parquet", b""))

    def test_a_folder_a_class(self, tmp_path: Path) -> None:
        for name, content in {
            "sport/1.txt": b"goal\n",
            "sport/2.txt": b"\xa35 fee",
            "tech/1.txt": "naïve".encode(),
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write(tmp_path, name, content)
        assert read(tmp_path) == [("goal", "sport"), ("£5 fee", "sport"), ("naïve", "tech")]


class TestColumns:
    def test_named_columns_come_before_recognised_ones(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "text,label,title,area\na,x,b,y\n")
        assert read(path) == [("a", "x")]
        assert read(path, text="title", label="area") == [("b", "y")]

    def test_recognised_names_may_be_capitalised(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.csv", "TEXT,Category\na,x\n")) == [("a", "x")]

    def test_an_unknown_column_suggests_the_nearest(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "headline,label\na,x\n")
        with pytest.raises(SourceError, match=r"has no column 'headlin'.*Did you mean 'headline'\?"):
            read(path, text="headlin")

    def test_an_unrecognised_column_lists_the_ones_there_are(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "text,mark\na,x\n")
        with pytest.raises(SourceError, match=r"as the label.*'text', 'mark'.*task\.data\.label"):
            read(path)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content", "complaint"),
        [
            ("a.csv", "text,label\na,x\nb,y,z\n", "line 3 has 3 fields, the header has 2"),
            ("a.tsv", "text\tlabel\na\tx\n\nb\n", "line 4 has 1 fields, the header has 2"),
            ("a.csv", 'text,label\n"a,x\n', "line 2"),
            ("a.csv", "", "it is empty"),
            ("a.tsv", b"text\tlabel\ncaf\xe9\tx\n", "byte 14 is not utf-8"),
            ("a.tsv", b"text\tlabel\n\0\tx\n", "zero bytes"),
            ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2 has other keys"),
            ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "line 2"),
            ("a.jsonl", "[1, 2]\n", "line 1 has other keys"),
            ("a.xml", "<a/>", "its ending is '.xml'"),
            ("a.csv", "text,label\na,\n", "Document 1"),
            ("a.jsonl", '{"text": ["a"], "label": 1}\n', "Document 1"),
            ("a.jsonl", '{"text": "a", "label": null}\n', "Document 1"),
        ],
    )
    def test_ends_with_one_error_that_says_where(
        self, tmp_path: Path, name: str, content: str | bytes, complaint: str
    ) -> None:
        with pytest.raises(SourceError) as caught:
            read(write(tmp_path, name, content))
        assert complaint in caught.value.wrong
        assert "task.data" in caught.value.next_step

    def test_a_document_in_a_class_folder_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "sport").mkdir()
        write(tmp_path, "sport/1.txt", b"\xff\xfe\x81\x8d")
        with pytest.raises(SourceError, match=r"1\.txt"):
            read(tmp_path)
