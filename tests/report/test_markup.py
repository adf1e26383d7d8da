from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from autocompress.report.markup import Html, Row, join, table, tag


class Reader(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")))


@given(PRINTABLE, PRINTABLE)
def test_no_text_and_no_attribute_breaks_out_of_its_place(text: str, value: str) -> None:
    read = Reader(tag("p", text, class_=value))
    assert read.tags == [("p", {"class": value})]
    assert read.text == text


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "a < b")) == "<p><b>a &lt; b</b></p>"
    assert join(["<", Html("<br>")], "&") == "&lt;&amp;<br>"


def test_a_table_has_words_to_the_left_and_numbers_to_the_right() -> None:
    read = Reader(table(("model", "size"), [Row(("<script>", "5 MiB"), "chosen")], caption="sizes"))
    cells = [attributes["class"] for name, attributes in read.tags if name == "td"]
    assert cells == ["word", "number"]
    assert ("tr", {"class": "chosen"}) in read.tags
    assert "<script>5 MiB" in read.text
