"""``autocompress profile`` of a board on loopback, killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from autocompress.boards.remote_timer import KEEPS
from autocompress.devices.load import read_profile
from tests.boards.agents import agent, wait_until

SETTINGS = ("--tokens", "8", "--samples", "12")


@pytest.fixture
def user(tmp_path):
    """Return a function that runs a command of the user and gives the finished process."""
    surroundings = os.environ | {"AUTOCOMPRESS_HOME": str(tmp_path / "home"), "COLUMNS": "160"}

    def start(*words):
        command = [sys.executable, "-m", "autocompress", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings)

    return start


def finished(process):
    out, _ = process.communicate(timeout=600)
    return process.returncode, out


def samples(home):
    found = [path.read_text().splitlines() for path in home.glob("home/samples/*.jsonl")]
    return [json.loads(line) for line in (found[0] if found else []) if "shape" in line]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "tvm"])
def test_a_profiling_of_a_board_that_is_killed_goes_on_where_it_was(user, tmp_path, engine):
    with agent(tmp_path / "board") as started:
        assert finished(user("device", "add", "my-board", "--rpc", str(started.place)))[0] == 0
        code, out = finished(user("device", "probe", "my-board"))
        assert code == 0, out
        assert "mtriple" in read_profile(tmp_path / "home/device_profiles/my-board.yaml").tvm_target
        command = ("profile", "my-board", "--engine", engine, *SETTINGS)
        with user(*command) as profiling:
            wait_until(lambda: len(samples(tmp_path)) >= 3, timeout_s=600)
            started.server().send_signal(signal.SIGKILL)
            wait_until(lambda: len(samples(tmp_path)) >= 5, timeout_s=600)
            profiling.kill()
        before = samples(tmp_path)
        code, out = finished(user(*command, "--resume"))
        assert code == 0, out
        after = samples(tmp_path)
        assert after[: len(before)] == before
        assert all("measurement" in one for one in after), after
        shapes = [json.dumps(one["shape"]) for one in after]
        first = len(set(shapes))
        assert len(set(shapes[:first])) == first  # None twice, but those that were disturbed at the end.
        (fitted,) = (tmp_path / "home/latency_models").glob("my-board-*.json")
        assert len(json.loads(fitted.read_text())["samples"]) == first
        # What the killed host had in hand: a model, and the kernels that it timed last.
        assert len(list(started.store.iterdir())) <= 1 + KEEPS


@pytest.mark.slow
def test_a_board_that_cannot_be_reached_keeps_what_was_measured(user, tmp_path):
    assert finished(user("device", "add", "raspberry-pi-4", "--rpc", "127.0.0.1:9"))[0] == 0
    code, out = finished(user("profile", "raspberry-pi-4", *SETTINGS))
    assert code == 4, out
    assert "--resume" in out


def test_a_board_that_was_never_added_is_unreachable(user):
    code, out = finished(user("profile", "raspberry-pi-4", *SETTINGS))
    assert code == 4, out
    assert "device add raspberry-pi-4" in out
