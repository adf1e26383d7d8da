"""What is made of sessions that break, and of those that there are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from autocompress.boards.address import Direct, Place
from autocompress.boards.connection import Connection, Patience
from autocompress.boards.link import BrokenLinkError
from autocompress.boards.service import PREFIX
from autocompress.boards.uploads import Uploads
from autocompress.errors import DeviceError

TRIES = 3


@dataclass
class Scripted:
    """A board of which each session is "refused", "breaks" or "works"; the last word holds for all that follow."""

    words: list[str]
    asked: list[str] = field(default_factory=list)

    def call(self, call, *, timeout_s):
        if call.function == PREFIX + "held":
            return {"bytes": 5}
        self.asked.append(call.function.removeprefix(PREFIX))
        if self.word == "breaks" and call.function != PREFIX + "ping":
            raise BrokenLinkError("cut")
        return {"done": True}

    @contextmanager
    def session(self, *, lasts_s: float) -> Iterator[Scripted]:
        self.word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if self.word == "refused":
            raise BrokenLinkError("connection refused")
        yield self


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Ask a board that goes by so many words; return the answer and what reached it."""
    file = tmp_path / "model"
    file.write_bytes(b"model")
    patience = Patience(pauses_s=(1.0,) * (TRIES - 1))
    connection = Connection("rpi4", Direct(Place("127.0.0.1", 1)), patience, lambda pause_s: None)

    def asked(*words: str):
        board = Scripted(list(words))
        monkeypatch.setattr(Connection, "session", lambda self, *, lasts_s: board.session(lasts_s=lasts_s))
        return Uploads(connection, 8).ask("measure", file, "{}", timeout_s=1, step="measuring it"), board.asked

    return asked


def test_a_board_that_starts_slowly_again_is_not_blamed_on_the_file(ask):
    answer, asked = ask("breaks", "refused", "refused", "refused", "works")
    assert answer == {"done": True}
    assert asked == ["measure", "ping", "measure"]


def test_as_many_broken_sessions_as_tries_are_blamed_on_the_file(ask):
    answer, asked = ask("breaks")
    assert answer["failure"].startswith("crash: ")
    assert asked == ["measure"] * TRIES + ["ping"]


def test_a_board_that_is_gone_is_an_error_of_the_board(ask):
    with pytest.raises(DeviceError, match=r"while measuring it \(connection refused; tried 3 times\)"):
        ask("breaks", "refused")


def test_a_board_that_comes_and_goes_is_not_tried_for_ever(ask):
    coming_and_going = [*["refused"] * TRIES, "works"] * TRIES
    with pytest.raises(DeviceError, match="did not answer while measuring it"):
        ask(*coming_and_going, "refused")
