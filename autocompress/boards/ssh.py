"""Reach a board by ``ssh``: it starts the agent there, on loopback, and forwards a port to it."""

from __future__ import annotations

import queue
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from autocompress.boards.address import Address, Direct, Place, Ssh
from autocompress.boards.connection import PATIENT, Connection, Patience
from autocompress.boards.link import BrokenLinkError
from autocompress.profiling.runner import last_words

START_S = 60.0
"""Seconds in which the agent must serve; a small board takes several to start Python."""
_OPTIONS = ("BatchMode=yes", "ExitOnForwardFailure=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3")


@contextmanager
def reach(name: str, address: Address, patience: Patience = PATIENT) -> Iterator[Connection]:
    """Yield a connection to the board ``name``; what ``ssh`` holds open for it is closed at the end."""
    if not isinstance(address, Ssh):
        yield Connection(name, address, patience)
        return
    tunnel = Tunnel(address)
    try:
        yield Connection(name, Direct(tunnel.place), patience, way=str(address), prepare=tunnel.ensure)
    finally:
        tunnel.close()


class Tunnel:
    """A running ``ssh`` that forwards a port of this machine to an agent that it started."""

    def __init__(self, address: Ssh) -> None:
        self._address = address
        self._process: subprocess.Popen[str] | None = None
        self.place = Place("127.0.0.1", _free_port())

    def ensure(self) -> None:
        """Start it, if it does not run or no longer does.

        Raises:
            BrokenLinkError: ``ssh`` ends, or the agent does not serve in time.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        with tempfile.TemporaryFile("w+") as errors:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            if "Serving" not in _first_line(self._process):
                self._process.kill()
                self._process.wait()
                errors.seek(0)
                raise BrokenLinkError(f"{self._address}: {last_words(errors.read())}")

    def close(self) -> None:
        """End it; the agent ends with its standard input."""
        if self._process is None:
            return
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                with suppress(OSError):
                    file.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _command(self) -> list[str]:
        to = self._address
        agent = f"{to.python} -m autocompress.boards.agent --port {to.port} --until-input-ends"
        options = [word for option in _OPTIONS for word in ("-o", option)]
        return ["ssh", *options, "-L", f"{self.place}:127.0.0.1:{to.port}", to.destination, agent]


def _first_line(process: subprocess.Popen[str]) -> str:
    """Return what the agent says first, "" if that takes too long."""
    stdout, lines = process.stdout, queue.SimpleQueue[str]()
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=START_S)
    except queue.Empty:
        return ""


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
