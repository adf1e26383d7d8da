"""Agents in processes of their own, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from autocompress.boards.address import Direct, Place
from autocompress.boards.agent import LOOPBACK
from autocompress.boards.connection import Connection, Patience

QUICK = Patience(connect_s=10, call_s=10, pauses_s=(0.1, 0.5, 1.0, 2.0))


@dataclass
class Agent:
    """An agent and its supervisor.

    Attributes:
        supervisor: The process that starts it again.
        port: At which it listens.
        home: Its user's folder.
        host: Address at which it listens.
    """

    supervisor: subprocess.Popen[bytes]
    port: int
    home: Path
    host: str = LOOPBACK

    @property
    def place(self) -> Place:
        return Place(self.host, self.port)

    @property
    def store(self) -> Path:
        return self.home / "agent" / str(self.port)

    def connection(self, patience: Patience = QUICK) -> Connection:
        return Connection("loopback", Direct(self.place), patience)

    def server(self) -> psutil.Process:
        """The process that listens."""
        (server,) = psutil.Process(self.supervisor.pid).children()
        return server

    def everything(self) -> list[psutil.Process]:
        """All processes but the supervisor."""
        return psutil.Process(self.supervisor.pid).children(recursive=True)

    def worker(self) -> psutil.Process | None:
        """Return the process that measures, if one does."""
        return self._running("profiling.worker")

    def kernel_worker(self) -> psutil.Process | None:
        """Return the process that times kernels, if one does."""
        return self._running("boards.kernel_worker")

    def _running(self, module: str) -> psutil.Process | None:
        return next((one for one in self.everything() if _runs(one, module)), None)


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return any(module in word for word in process.cmdline())
    except psutil.Error:
        return False


def wait_until(found, timeout_s: float = 120):
    """Return what ``found`` returns as soon as it is something."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if result := found():
            return result
        time.sleep(0.02)
    raise TimeoutError


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def surroundings(home: Path, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {**variables, "AUTOCOMPRESS_HOME": str(home)}


@contextmanager
def agent(
    home: Path,
    *options: str,
    inside: Sequence[str] = (),
    host: str = LOOPBACK,
    python: str = sys.executable,
    variables: Mapping[str, str] = os.environ,
) -> Iterator[Agent]:
    """Start an agent and give it when it serves.

    Args:
        home: Its user's folder.
        options: More words of its command.
        inside: What is put before its command.
        host: Address at which it listens.
        python: Its interpreter.
        variables: Of its surroundings.
    """
    port = free_port()
    command = [*inside, python, "-m", "autocompress.boards.agent", "--port", str(port), *options]
    command += [] if host == LOOPBACK else ["--insecure-bind", host]
    env = surroundings(home, variables)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, start_new_session=True) as process:
        try:
            assert b"Serving" in process.stdout.readline()
            yield Agent(process, port, home, host)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
