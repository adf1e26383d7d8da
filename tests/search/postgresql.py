"""A real PostgreSQL on loopback, for as long as a module's tests take."""

import os
import pwd
import shutil
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


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL, without a driver, of an empty database that asks for a password; root becomes another user for it."""
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

    def run(program: str, *arguments: str) -> subprocess.Popen:
        command = [str(folder_of_programs / program), *arguments]
        return subprocess.Popen(
            command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"LC_ALL": "C"}
        )

    secret = folder / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = str(folder / "data")
    options = ["--no-sync", "--encoding=UTF8", "--username=searcher", "--auth=scram-sha-256", f"--pwfile={secret}"]
    assert run("initdb", "-D", data, *options).wait(60) == 0
    port = free_port()
    server = run("postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F")
    try:
        url = f"postgresql://searcher:{PASSWORD}@127.0.0.1:{port}/postgres"
        _wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(30)
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
