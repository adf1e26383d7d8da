"""HTML from values: whatever is not already markup is escaped, so that no name can break out of its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LONG = 30
"""Characters from which a cell of words is kept wide."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return ``parts`` one after another, each escaped unless it is markup."""
    return Html(escape(between).join(part if isinstance(part, Html) else escape(part) for part in parts))


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Return an element; children are escaped unless they are markup, ``class_`` stands for ``class``."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{join(children)}</{name}>")


@dataclass(frozen=True)
class Row:
    """Cells of one table row, and the class of the row for the style sheet."""

    cells: tuple[str, ...]
    kind: str = ""


def table(header: Sequence[str], rows: Iterable[Row], *, words: int = 1, caption: str) -> Html:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: One title a column.
        rows: As many cells each.
        words: How many of the first columns hold words; the others hold numbers and stand to the right.
        caption: What the table holds, for screen readers.
    """

    def kind(place: int, text: str) -> str:
        return "number" if place >= words else "word long" if len(text) > _LONG else "word"

    def line(row: Row, cell: str) -> Html:
        cells = (tag(cell, text, class_=kind(place, text)) for place, text in enumerate(row.cells))
        return tag("tr", *cells, class_=row.kind)

    head = tag("thead", line(Row(tuple(header)), "th"))
    body = tag("tbody", *(line(row, "td") for row in rows))
    return tag("div", tag("table", tag("caption", caption), head, body), class_="scroll", tabindex="0")
