"""The agent, in processes of its own, as other programs meet it."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from autocompress.boards.agent import LOOPBACK
from tests.boards.agents import agent, free_port, surroundings, wait_until

LIGHT = (
    "torch",
    "transformers",
    "optuna",
    "pydantic",
    "yaml",
    "typer",
    "rich",
    "onnx",
    "scipy",
    "cloudpickle",
    "tornado",
)


@pytest.mark.parametrize("module", ["agent", "service", "caller", "remote", "connection"])
def test_no_heavy_package_is_needed_on_either_side(module):
    blocked = f"import sys; sys.modules.update(dict.fromkeys({LIGHT!r}))"
    code = f"{blocked}; import autocompress.boards.{module}; assert 'tvm' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_serving_agent_loads_no_heavy_package(tmp_path):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({LIGHT!r}))\n"
        "import threading; threading.Thread.join = lambda self: None\n"
        "from autocompress.boards.agent import Service, serve_once\n"
        f"serve_once(Service(port={free_port()}))\n"
        f"print(*[name for name in {LIGHT!r} if sys.modules.get(name)]); import os; sys.stdout.flush(); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=surroundings(tmp_path),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "Serving" not in line] == [""]


def test_it_is_reached_by_loopback_only(serving):
    (listening,) = [one for one in serving.server().net_connections() if one.status == psutil.CONN_LISTEN]
    assert listening.laddr.ip == LOOPBACK


@pytest.mark.slow
def test_a_caller_that_says_nothing_does_not_keep_the_next_one_out_for_ever(tmp_path, monkeypatch):
    with agent(tmp_path) as started, socket.create_connection(started.place.__dict__.values()):
        assert started.connection().ask("ping", step="asking") == {}


def test_any_client_of_tvm_is_served(serving):
    code = f"import tvm.rpc; print(tvm.rpc.connect('127.0.0.1', {serving.port}).get_function('autocompress.ping')())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "{}\n", done.stderr


def test_binding_elsewhere_is_done_only_with_a_warning(tmp_path):
    command = [sys.executable, "-m", "autocompress.boards.agent", "--insecure-bind", "0.0.0.0"]
    command += ["--port", str(free_port()), "--until-input-ends"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, env=surroundings(tmp_path)) as process:
        assert "Serving at 0.0.0.0" in process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        process.stdin.close()
        assert process.wait(10) == 0
        assert "no authentication" in process.stderr.read()
    wait_until(lambda: not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE)


def test_a_port_that_is_taken_ends_it_with_what_to_do(serving, tmp_path):
    command = [sys.executable, "-m", "autocompress.boards.agent", "--port", str(serving.port)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=surroundings(serving.home), timeout=300
    )
    assert done.returncode == 2
    assert "cannot be bound" in done.stderr
    assert "--port" in done.stderr


def test_killing_the_supervisor_ends_all(tmp_path):
    with agent(tmp_path) as started:
        server = started.server()
        started.supervisor.kill()
        wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_an_agent_at_a_tracker_has_a_key(tmp_path):
    command = [sys.executable, "-m", "autocompress.boards.agent", "--tracker", "127.0.0.1:9000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings(tmp_path), timeout=300)
    assert done.returncode == 2
    assert "--key" in done.stderr
