"""A real PostgreSQL on loopback, for as long as a module's tests take."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    """

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user, self._port = programs, folder, user, free_port()
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
        where = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        self._process = self._run("postgres", "-D", str(self._folder / "data"), *where, "-F")
        _wait_for(self.url, self._process)

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for a module's tests; root becomes another user for it."""
    folder_of_programs = programs()
    if folder_of_programs is None:
        assert not os.environ.get("CI"), "CI installs PostgreSQL"
        pytest.skip("PostgreSQL is not installed")
    user = None
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if os.geteuid() == 0:
        user = next((name for name in ("postgres", "nobody") if _exists(name)), None)
        if user is None:
            pytest.skip("root may not run PostgreSQL, and there is no user postgres or nobody")
        shutil.chown(folder, user)
    running = Server(folder_of_programs, folder, user)
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgresql(server: Server) -> str:
    """The URL of its database, without a driver."""
    return server.url


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
