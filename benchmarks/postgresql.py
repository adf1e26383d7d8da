"""A real PostgreSQL on loopback, for as long as it is asked about."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "open-sesame"


def programs() -> Path | None:
    """Return the folder of initdb and postgres: Debian keeps them out of the path, a folder a version."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A PostgreSQL with one empty database that asks for a password.

    Args:
        programs: Folder of initdb and postgres.
        folder: Of its files, which belong to ``user``.
        user: Whose processes they are; ``None``: this one.
        connections: That it takes at once; 100 by PostgreSQL's default.
        durable: Whether what is committed is on the disk.
    """

    def __init__(
        self, programs: Path, folder: Path, user: str | None, *, connections: int = 100, durable: bool = False
    ) -> None:
        self._programs, self._folder, self._user, self._port = programs, folder, user, free_port()
        self._connections, self._options = connections, () if durable else ("-F",)
        self.url = f"postgresql://searcher:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ["--no-sync", "--encoding=UTF8", "--username=searcher", "--auth=scram-sha-256", f"--pwfile={secret}"]
        assert self._run("initdb", "-D", str(folder / "data"), *options).wait(60) == 0
        self.start()

    def _run(self, program: str, *arguments: str) -> subprocess.Popen:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [str(self._programs / program), *arguments]
        return subprocess.Popen(command, user=self._user, cwd=self._folder, env={"LC_ALL": "C"}, **silent)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder), "-N", str(self._connections)]
        self._process = self._run("postgres", "-D", str(self._folder / "data"), *where, *self._options)
        _wait_for(self.url, self._process)

    @property
    def pid(self) -> int:
        """Of the process whose children serve the connections."""
        return self._process.pid

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


def user_of_servers() -> str | None:
    """Return who may run PostgreSQL where this process may not, being root's; ``None``: this process may.

    Raises:
        LookupError: There is nobody.
    """
    if os.geteuid() != 0:
        return None
    found = next((name for name in ("postgres", "nobody") if _exists(name)), None)
    if found is None:
        raise LookupError("root may not run PostgreSQL, and there is no user postgres or nobody")
    return found


@contextmanager
def running(programs: Path, *, connections: int = 100, durable: bool = False) -> Iterator[Server]:
    """Yield a server with an empty database, which is gone afterwards."""
    user, folder = user_of_servers(), Path(tempfile.mkdtemp(prefix="postgresql-"))
    if user is not None:
        shutil.chown(folder, user)
    server = Server(programs, folder, user, connections=connections, durable=durable)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _wait_for(url: str, server: subprocess.Popen) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


def _exists(user: str) -> bool:
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False
