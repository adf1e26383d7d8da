"""A real PostgreSQL on loopback, for as long as a module's tests take."""

import os
from collections.abc import Iterator

import pytest

from benchmarks.postgresql import PASSWORD, Server, free_port, programs, running, user_of_servers

__all__ = ["PASSWORD", "free_port", "postgresql", "server"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for a module's tests; root becomes another user for it."""
    folder_of_programs = programs()
    if folder_of_programs is None:
        assert not os.environ.get("CI"), "CI installs PostgreSQL"
        pytest.skip("PostgreSQL is not installed")
    try:
        user_of_servers()
    except LookupError as error:
        pytest.skip(str(error))
    with running(folder_of_programs) as found:
        yield found


@pytest.fixture(scope="module")
def postgresql(server: Server) -> str:
    """The URL of its database, without a driver."""
    return server.url
