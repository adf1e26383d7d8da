"""Reach a board: sessions, retries with growing pauses, and one error that names step, board and next command."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from autocompress.boards.address import Direct, Place, Tracked
from autocompress.boards.caller import Call
from autocompress.boards.facts import Facts
from autocompress.boards.link import BrokenLinkError, Link
from autocompress.boards.service import PREFIX
from autocompress.errors import DeviceError

T = TypeVar("T")
_TRACKER_MAGIC, _REQUEST, _SUCCESS = 0x2F271, 4, 0
"""Of TVM's tracker: the first word, the code of a request, and the code of an answer that is one."""


@dataclass(frozen=True)
class Patience:
    """How long a board is waited for.

    Attributes:
        connect_s: For a session: an agent serves one at a time, so another host's measurement may come first.
        call_s: For a call that measures nothing.
        pauses_s: Before each further try.
    """

    connect_s: float = 30.0
    call_s: float = 30.0
    pauses_s: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0)

    @property
    def tries(self) -> int:
        """How often it is tried."""
        return 1 + len(self.pauses_s)


def _nothing() -> None:
    """Prepare nothing: the board is reached as it is."""


PATIENT = Patience()


@dataclass(frozen=True)
class Connection:
    """A way to a board. It holds nothing open: every use is a session of its own, so hosts can take turns.

    Attributes:
        name: Of the board.
        address: Where its agent is.
        patience: How long it is waited for.
        sleep: Passes the pauses.
        way: How people read where it is; "" for the address.
        prepare: Called before each session, e.g. to start ``ssh`` again; may raise ``BrokenLinkError``.
    """

    name: str
    address: Direct | Tracked
    patience: Patience = PATIENT
    sleep: Callable[[float], None] = time.sleep
    way: str = ""
    prepare: Callable[[], None] = _nothing

    def __str__(self) -> str:
        return self.way or str(self.address)

    @contextmanager
    def session(self, *, lasts_s: float) -> Iterator[Link]:
        """Yield a session, which the agent ends after ``lasts_s`` seconds if the network was cut without a word.

        Raises:
            BrokenLinkError: There is none to be had.
        """
        self.prepare()
        place, key = self._agent()
        with Link(place, f"{key} -timeout={lasts_s:g}", connect_s=self.patience.connect_s) as link:
            yield link

    def attempt(self, step: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, trying again when the link breaks.

        Args:
            step: What it does, as it reads after "while".
            work: Begins a session and can be repeated.

        Raises:
            DeviceError: It breaks at every try.
        """
        for pause_s in (*self.patience.pauses_s, None):
            try:
                return work()
            except BrokenLinkError as error:
                if pause_s is None:
                    raise self.unreachable(step, str(error)) from error
                self.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def unreachable(self, step: str, reason: str) -> DeviceError:
        """Return the error that says so."""
        times = f"tried {self.patience.tries} times"
        return DeviceError(
            f"The board {self.name} ({self}) did not answer while {step} ({reason}; {times}).",
            right="Its agent runs, and this machine reaches it.",
            next_step=f"Run on the board: autocompress device serve. Then here: autocompress device probe {self.name}",
        )

    def ask(self, function: str, *, step: str) -> dict[str, Any]:
        """Call a function of the agent that takes nothing.

        Raises:
            DeviceError: The board cannot be reached, or the function fails.
        """

        def once() -> dict[str, Any]:
            with self.session(lasts_s=2 * self.patience.call_s) as link:
                return link.call(Call(PREFIX + function), timeout_s=self.patience.call_s)

        answer = self.attempt(step, once)
        if "failure" in answer:
            raise self.unreachable(step, str(answer["failure"]))
        return answer

    def facts(self) -> Facts:
        """Return what the board says of itself.

        Raises:
            DeviceError: It cannot be reached.
        """
        return Facts.from_dict(self.ask("facts", step="asked about itself"))

    def round_trip_ms(self, *, calls: int = 20) -> float:
        """Return the median time of a call that does nothing, in milliseconds.

        Raises:
            DeviceError: The board cannot be reached.
        """

        def once() -> float:
            times_s = []
            with self.session(lasts_s=2 * self.patience.call_s) as link:
                for _ in range(calls):
                    start_s = time.perf_counter()
                    link.call(Call(PREFIX + "ping"), timeout_s=self.patience.call_s)
                    times_s.append(time.perf_counter() - start_s)
            return 1e3 * sorted(times_s)[calls // 2]

        return self.attempt("timing the round trip", once)

    def _agent(self) -> tuple[Place, str]:
        """Return where the agent listens, and the key that it wants to hear."""
        if isinstance(self.address, Direct):
            return self.address.place, ""
        try:
            place, key = _request(self.address, timeout_s=self.patience.connect_s)
        except (OSError, ValueError, struct.error) as error:
            raise BrokenLinkError(f"the tracker: {error}") from error
        return place, key


def _request(address: Tracked, *, timeout_s: float) -> tuple[Place, str]:
    """Ask a tracker for an agent; it answers when one is free."""
    tracker = address.tracker
    with socket.create_connection((tracker.host, tracker.port), timeout=timeout_s) as sock:
        sock.sendall(struct.pack("<i", _TRACKER_MAGIC))
        if struct.unpack("<i", _receive(sock, 4)) != (_TRACKER_MAGIC,):
            raise ValueError(f"{tracker} is no tracker of TVM")
        question = json.dumps([_REQUEST, address.key, "", 1]).encode()
        sock.sendall(struct.pack("<i", len(question)) + question)
        code, (host, port, key) = json.loads(_receive(sock, *struct.unpack("<i", _receive(sock, 4))))
    if code != _SUCCESS:
        raise ValueError(f"it answers {code}")
    return Place(host, port), key


def _receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data
