"""Files of this machine that a board holds, and what its agent is asked to do with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocompress.boards.caller import Call
from autocompress.boards.connection import Connection
from autocompress.boards.link import BrokenLinkError, Link
from autocompress.boards.service import PREFIX
from autocompress.boards.store import content_name
from autocompress.errors import DeviceError

PART_BYTES = 2**21
"""Bytes of a file in one call, so that a slow network and a cut one can be told apart."""
GRACE_S = 10.0
"""Seconds that the agent has, beyond the limit of what it is asked to do, to say that it was reached."""


@dataclass
class Uploads:
    """A file is sent once, and removed when ``keeps`` others were sent or ``clear`` is called.

    Attributes:
        connection: The way to the board.
        keeps: Most files that it holds on the board.
    """

    connection: Connection
    keeps: int
    _sent: dict[str, None] = field(default_factory=dict)

    def ask(self, function: str, path: Path, request: str, *, timeout_s: float, step: str) -> dict[str, Any]:
        """Return what a function of the agent answers that takes the name of a file, a request and a time limit.

        ``failure`` in the answer says why it could not be done. That is also what comes of as many sessions as there
        are tries, all broken although the board answers in between: the file may be why. A board that is only slow to
        start again gives no session, and is tried anew.

        Args:
            function: Of ``service.functions``, without the prefix.
            path: The file, which is sent if the board lacks it.
            request: What is asked of it, in JSON.
            timeout_s: Seconds in which the agent is to be done.
            step: What this does, as it reads after "while".

        Raises:
            DeviceError: The board cannot be reached.
        """
        name = content_name(path)
        self._sent[name] = self._sent.pop(name, None)  # The last that was used stands last.
        call = Call(PREFIX + function, (name, request, timeout_s))
        calls = 2 + -(-path.stat().st_size // PART_BYTES)
        lasts_s = timeout_s + GRACE_S + calls * self.connection.patience.call_s
        tries, sessions = self.connection.patience.tries, 0

        def once() -> dict[str, Any]:
            nonlocal sessions
            with self.connection.session(lasts_s=lasts_s) as link:
                sessions += 1
                return self._send(link, path, name) or link.call(call, timeout_s=timeout_s + GRACE_S)

        for _ in range(tries):
            try:
                return self.connection.attempt(step, once)
            except DeviceError as error:
                lost = error
            self._see(lost)
            if sessions >= tries:
                return {"failure": f"crash: {lost.wrong}"}
        raise lost

    def clear(self) -> None:
        """Remove from the board what was sent; a board that is gone keeps it until its agent starts anew."""
        calls = [Call(PREFIX + "remove", (name,)) for name in self._sent]
        self._sent.clear()
        if not calls:
            return
        call_s = self.connection.patience.call_s
        try:
            with self.connection.session(lasts_s=2 * call_s) as link:
                for call in calls:
                    link.call(call, timeout_s=call_s)
        except BrokenLinkError:
            return

    def _send(self, link: Link, path: Path, name: str) -> dict[str, Any] | None:
        """Send what the board lacks of a file; return the failure, if it is one."""
        call_s, total = self.connection.patience.call_s, path.stat().st_size
        for old in list(self._sent)[: -self.keeps]:
            link.call(Call(PREFIX + "remove", (old,)), timeout_s=call_s)
            del self._sent[old]
        answer = link.call(Call(PREFIX + "held", (name,)), timeout_s=call_s)
        while "failure" not in answer and (offset := int(answer["bytes"])) < total:
            part = Call(PREFIX + "put", (name, offset, total), str(path), offset, PART_BYTES)
            answer = link.call(part, timeout_s=call_s)
        return answer if "failure" in answer else None

    def _see(self, lost: DeviceError) -> None:
        """Return if the board still answers.

        Raises:
            DeviceError: It does not: ``lost``.
        """
        try:
            self.connection.ask("ping", step="looking whether it is there at all")  # It may just be starting again.
        except DeviceError:
            raise lost from None
