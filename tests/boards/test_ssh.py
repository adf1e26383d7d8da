"""The way by ssh; a program of that name forwards the port and runs the command on this machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from autocompress.boards.address import Ssh
from autocompress.boards.connection import Patience
from autocompress.boards.ssh import reach
from autocompress.errors import DeviceError
from tests.boards.agents import free_port, wait_until

FAKE = Path(__file__).with_name("fake_ssh.py")
ONCE = Patience(10, 10, (0.1, 0.5))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put the fake on PATH; return the file in which it notes its process ids."""
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {tmp_path}/pids "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))
    return tmp_path / "pids"


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " not in stat.read_text()


def test_ssh_starts_the_agent_forwards_a_port_and_takes_both_along_when_it_ends(fake):
    with reach("rpi4", Ssh("pi@rpi4", sys.executable, free_port()), ONCE) as connection:
        assert connection.ask("ping", step="asking") == {}
        assert connection.ask("ping", step="asking") == {}
        assert len(pids(fake)) == 2  # One ssh and one agent for both.
    wait_until(lambda: not any(map(alive, pids(fake))))


def test_an_ssh_that_ends_is_started_again(fake):
    with reach("rpi4", Ssh("pi@rpi4", sys.executable, free_port()), ONCE) as connection:
        assert connection.ask("ping", step="asking") == {}
        first = pids(fake)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, first[1:])))
        assert connection.ask("ping", step="asking") == {}


def refused(address: Ssh) -> str:
    with reach("rpi4", address, Patience(2, 2, ())) as connection, pytest.raises(DeviceError) as caught:
        connection.ask("ping", step="asking")
    return str(caught.value.wrong)


def test_what_ssh_complains_of_is_in_the_error(fake):
    wrong = refused(Ssh("nobody@rpi4", sys.executable, free_port()))
    assert "ssh nobody@rpi4" in wrong
    assert "Permission denied (publickey)" in wrong


def test_a_board_without_autocompress_is_an_error_that_says_so(fake):
    assert "no-such-python" in refused(Ssh("pi@rpi4", "no-such-python", free_port()))
