"""Read labelled documents from one file, or from one folder a class; what is odd is an error, never a guess."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from autocompress._optional import require
from autocompress.errors import SourceError

Document: TypeAlias = tuple[str, str]
"""(text, label)"""
Columns: TypeAlias = Mapping[str, Sequence[object]]
"""Column name -> values, all of one length."""

TEXT_COLUMNS = ("text", "sentence", "question", "query", "content", "document", "utterance", "review", "quote")
LABEL_COLUMNS = ("label", "labels", "category", "class", "intent", "topic", "sentiment", "target")
SUFFIXES = (".tsv", ".tab", ".csv", ".jsonl", ".parquet")


def read_documents(path: Path, *, text: str | None, label: str | None, skip_rows: int) -> list[Document]:
    """Read a table, or a folder that holds a folder of ``.txt`` files for each class.

    Args:
        path: A file with one of ``SUFFIXES``, or a folder.
        text: Column of the texts; ``None`` recognises one of ``TEXT_COLUMNS``.
        label: Column of the labels; ``None`` recognises one of ``LABEL_COLUMNS``.
        skip_rows: Rows to leave out after the header row (tsv, tab, csv).

    Raises:
        SourceError: It cannot be decoded or parsed, or lacks a column.
        MissingDependencyError: It is a parquet file and pyarrow is not installed.
    """
    if path.is_dir():
        return _read_class_folders(path)
    if path.suffix == ".parquet":
        parquet = require("pyarrow.parquet", extra="parquet", purpose="read parquet files")
        try:
            columns: Columns = parquet.read_table(path).to_pydict()
        except (OSError, ValueError) as error:
            raise _unreadable(path, str(error), "an intact parquet file") from error
    elif path.suffix == ".jsonl":
        columns = _read_jsonl(path)
    elif path.suffix in SUFFIXES:
        columns = _read_rows(path, skip_rows)
    else:
        raise _unreadable(path, f"its ending is {path.suffix!r}", f"one of {', '.join(SUFFIXES)}")
    return pick(columns, where=str(path), text=text, label=label)


def pick(columns: Columns, *, where: str, text: str | None, label: str | None) -> list[Document]:
    """Take the text and the label column out of a table; ``where`` names the table in errors.

    Raises:
        SourceError: A column is missing, or a value is.
    """
    texts = columns[_column(columns, text, TEXT_COLUMNS, role="text", where=where)]
    labels = columns[_column(columns, label, LABEL_COLUMNS, role="label", where=where)]
    for row, (sentence, name) in enumerate(zip(texts, labels, strict=True), start=1):
        if not isinstance(sentence, str) or name is None or name == "":
            raise SourceError(
                f"Document {row} of {where} has text {str(sentence)[:40]!r} and label {name!r}.",
                right="Each document has a text and a label.",
                next_step="Correct or remove it, or name the right columns under task.data.",
            )
    return [(str(sentence), str(name)) for sentence, name in zip(texts, labels, strict=True)]


def _column(columns: Columns, named: str | None, known: tuple[str, ...], *, role: str, where: str) -> str:
    if named is not None and named in columns:
        return named
    lower = {name.lower(): name for name in reversed(list(columns))}
    if named is None and (found := next((lower[name] for name in known if name in lower), None)) is not None:
        return found
    close = get_close_matches(named or "", list(columns), n=1)
    raise SourceError(
        f"{where} has no column {named!r}." if named else f"No column of {where} is recognised as the {role}.",
        right=f"Its columns are {', '.join(map(repr, columns)) or 'none'}.",
        next_step=f"Did you mean {close[0]!r}?" if close else f"Set task.data.{role} to one of them.",
    )


def _read_rows(path: Path, skip_rows: int) -> Columns:
    """Quotes are plain characters in tab-separated files, unless the rows only fit when quotes enclose fields."""
    content = decode(path)
    if path.suffix == ".csv":
        return _to_columns(path, list(_csv_rows(path, content, ",")), skip_rows)
    plain = [(number, line.split("\t")) for number, line in enumerate(content.split("\n"), start=1) if line]
    if len({len(row) for _, row in plain[:1] + plain[1 + skip_rows :]}) > 1 and '\t"' in content:
        return _to_columns(path, list(_csv_rows(path, content, "\t")), skip_rows)
    return _to_columns(path, plain, skip_rows)


def _csv_rows(path: Path, content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    limit = csv.field_size_limit(len(content) + 1)
    try:
        reader = csv.reader(content.splitlines(keepends=True), delimiter=delimiter, strict=True)
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise _unreadable(path, f"line {reader.line_num}: {error}", "rows of delimited, quoted fields") from error
    finally:
        csv.field_size_limit(limit)


def _to_columns(path: Path, rows: list[tuple[int, list[str]]], skip_rows: int) -> Columns:
    if not rows:
        raise _unreadable(path, "it is empty", "a header row and a row a document")
    header, body = rows[0][1], rows[1 + skip_rows :]
    for number, row in body:
        if len(row) != len(header):
            wrong = f"line {number} has {len(row)} fields, the header has {len(header)}"
            raise _unreadable(path, wrong, "as many fields in each row as in the header")
    return {name: [row[index] for _, row in body] for index, name in enumerate(header)}


def _read_jsonl(path: Path) -> Columns:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _unreadable(path, f"line {number}: {error}", "one JSON object a line") from error
        if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
            raise _unreadable(path, f"line {number} has other keys than line 1", "one JSON object a line, same keys")
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _read_class_folders(path: Path) -> list[Document]:
    """Old text corpora mix encodings, so a document that is not UTF-8 is read as Windows-1252 if it can be."""
    documents = []
    for file in sorted(path.glob("*/*.txt")):
        try:
            content = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            content = decode(file, encoding="cp1252")
        documents.append((content.strip(), file.parent.name))
    return documents


def decode(path: Path, encoding: str = "utf-8-sig", *, key: str = "task.data") -> str:
    """Return the text of a file, all of whose lines end in a line feed alone.

    Args:
        path: Of the file.
        encoding: Of its text.
        key: Of the run file, under which another may be named.

    Raises:
        SourceError: It cannot be read or is no text.
    """
    try:
        content = path.read_text(encoding=encoding)  # universal newlines: only \n is left
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"byte {error.start} is not {error.encoding}", "UTF-8 text", key) from error
    except OSError as error:
        raise _unreadable(path, str(error), "a readable file", key) from error
    if "\0" in content:
        raise _unreadable(path, "it holds zero bytes", "UTF-8 text", key)
    return content


def _unreadable(path: Path, wrong: str, right: str, key: str = "task.data") -> SourceError:
    return SourceError(
        f"{path} cannot be read: {wrong}.",
        right=f"A data file is {right}.",
        next_step=f"Correct or convert the file, or name another under {key}.",
    )
