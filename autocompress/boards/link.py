"""One session with an agent, in which no call can take longer than it may."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from autocompress.boards.address import Place
from autocompress.boards.caller import Call
from autocompress.profiling.runner import last_words

CALLER = (sys.executable, "-m", "autocompress.boards.caller")


class BrokenLinkError(Exception):
    """A session that is over: the agent ended, the network is cut, or a call took too long."""


class Link:
    """A session, closed when its ``with`` block is left.

    Args:
        place: Where the agent listens.
        key: Its key, with TVM's options.
        connect_s: Seconds in which it must take the session; it serves one at a time.

    Raises:
        BrokenLinkError: It does not.
    """

    def __init__(self, place: Place, key: str, *, connect_s: float) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the session)
        self._process = subprocess.Popen(
            [*CALLER, place.host, str(place.port), key, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._answer(connect_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, call: Call, *, timeout_s: float) -> dict[str, Any]:
        """Return what the board answers.

        Raises:
            BrokenLinkError: It does not within ``timeout_s``, or the link breaks.
        """
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(call.to_json() + "\n")
            stdin.flush()
        except OSError:
            raise BrokenLinkError(self._why()) from None
        return self._answer(timeout_s)

    def close(self) -> None:
        """End the session, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            if file is not None:
                with suppress(OSError):  # What was still to be written to a process that is dead.
                    file.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise BrokenLinkError(f"no answer within {timeout_s:g} s") from None
        if not line.endswith("\n"):
            raise BrokenLinkError(self._why())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            self._lines.put(line)
        self._lines.put("")

    def _why(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return last_words(self._errors.read())
