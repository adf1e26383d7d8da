"""Measuring on an agent, and what is left of it when something goes wrong."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from autocompress.boards.address import Direct
from autocompress.boards.connection import Connection, Patience
from autocompress.boards.remote import RemoteRunner
from autocompress.boards.uploads import PART_BYTES
from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Failure, Measurement
from autocompress.errors import DeviceError
from autocompress.profiling.drift import reference_ms
from autocompress.profiling.sustained import Sustained
from autocompress.profiling.timing import Timing
from tests.boards.agents import QUICK, agent, wait_until
from tests.boards.conftest import TINY
from tests.boards.relay import relay
from tests.small_disk import disk  # noqa: F401 (a fixture)

SHORT = Timing(1, 50, warmup=1, repeats=6, timeout_s=30)
LONG = Timing(1, 50, repeats=10**9, cap_s=1.5, timeout_s=30)
HURRIED = Patience(connect_s=1.0, call_s=1.0, pauses_s=(0.1,))


def test_an_artifact_is_measured_with_all_that_a_local_measurement_has(serving, tiny):
    with RemoteRunner(serving.connection(), "my-board") as runner:
        result = runner.run(tiny, SHORT, provenance={"date": "2025-01-31"})
    assert isinstance(result, Measurement), result
    assert (result.device, result.engine, result.threads) == ("my-board", "onnxruntime", 1)
    assert len(result.samples_ms) == 6
    assert result.base_memory_bytes < result.peak_memory_bytes
    assert result.size_bytes == tiny.size_bytes
    assert result.provenance["date"] == "2025-01-31"
    assert result.provenance["board"] == str(serving.place)
    assert reference_ms(result) > 0


def test_lasting_load_is_measured_on_the_board_and_beside_the_limit_of_the_rest(serving, tiny):
    with RemoteRunner(serving.connection(), "my-board") as runner:
        result = runner.run(tiny, replace(SHORT, sustained_s=2.0))
    assert isinstance(result, Measurement), result
    assert Sustained.of(result).seconds >= 2.0
    assert int(result.provenance["warmup_runs"]) > 1


def test_a_compiled_library_is_measured_too(serving, tmp_path):
    library = build(TINY, random_weights(TINY), tmp_path / "model", engine="tvm", tokens=8)
    with RemoteRunner(serving.connection(), "my-board") as runner:
        assert isinstance(runner.run(library, SHORT), Measurement)


def test_an_artifact_is_sent_once_in_parts_and_removed_after(serving, large):
    assert large.size_bytes > 2 * PART_BYTES
    with RemoteRunner(serving.connection(), "my-board") as runner:
        runner.run(large, replace(SHORT, vocabulary=20_000))
        (held,) = serving.store.iterdir()
        assert held.read_bytes() == large.path.read_bytes()
        before = held.stat()
        assert isinstance(runner.run(large, replace(SHORT, vocabulary=20_000)), Measurement)
        assert (held.stat().st_ino, held.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(serving.store.iterdir()) == []


def test_a_failure_of_the_worker_comes_back_as_it_is(serving, tiny):
    with RemoteRunner(serving.connection(), "my-board") as runner:
        hung = runner.run(tiny, replace(LONG, cap_s=60, timeout_s=1.0))
        refused = runner.run(replace(tiny, engine="abacus"), SHORT)
    assert hung == Failure("time-out: no answer within 1 s")
    assert isinstance(refused, Failure)
    assert refused.reason.startswith("refused: ")


def test_hosts_take_turns_on_one_board(serving, tiny, large):
    results: dict[str, list[Measurement | Failure]] = {"a": [], "b": []}

    def measure(name, artifact, vocabulary):
        with RemoteRunner(serving.connection(Patience()), name) as runner:
            results[name] += [runner.run(artifact, replace(SHORT, vocabulary=vocabulary)) for _ in range(2)]

    hosts = [threading.Thread(target=measure, args=given) for given in (("a", tiny, 50), ("b", large, 20_000))]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    for name, found in results.items():
        assert [getattr(one, "device", one) for one in found] == [name, name]


@contextmanager
def killer(started, times=float("inf")):
    """Kill the agent's server in each of so many measurements."""
    over, killed = threading.Event(), []

    def kill() -> None:
        while not over.wait(0.02) and len(killed) < times:
            if started.worker():
                server = started.server()
                server.kill()
                server.wait(10)
                killed.append(server)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("times", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_measurements_survive_an_agent_that_is_killed_again_and_again(fresh, tiny, times):
    connection = fresh.connection(replace(QUICK, pauses_s=(0.25,) * 8 * times))
    with RemoteRunner(connection, "my-board") as runner:
        with killer(fresh, times) as killed:
            result = runner.run(tiny, LONG)
        assert isinstance(result, Measurement), result
        assert len(killed) == times
        assert fresh.worker() is None


def test_an_artifact_that_ends_the_agent_at_every_try_is_a_failure(fresh, tiny):
    connection = fresh.connection(replace(QUICK, pauses_s=(1.0, 1.0, 1.0)))
    with killer(fresh):
        result = RemoteRunner(connection, "my-board").run(tiny, LONG)
    assert isinstance(result, Failure)
    assert result.reason.startswith("crash: ")
    assert "measuring model.onnx" in result.reason


def test_an_agent_that_is_gone_is_an_error_that_names_step_board_and_command(fresh, tiny):
    fresh.supervisor.kill()
    wait_until(lambda: fresh.supervisor.poll() is not None)
    with pytest.raises(DeviceError) as caught:
        RemoteRunner(fresh.connection(HURRIED), "my-board").run(tiny, SHORT)
    assert "loopback" in caught.value.wrong
    assert str(fresh.place) in caught.value.wrong
    assert "device probe loopback" in caught.value.next_step


def test_an_agent_that_hangs_is_an_error_and_not_a_hang(fresh, tiny):
    for one in (*fresh.everything(), fresh.supervisor):
        one.send_signal(signal.SIGSTOP)
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        RemoteRunner(fresh.connection(HURRIED), "my-board").run(tiny, SHORT)


def test_an_upload_that_is_cut_goes_on_where_it_was(fresh, large):
    with relay(fresh.place, cut_after_bytes=PART_BYTES + PART_BYTES // 2) as (place, traffic):
        with RemoteRunner(Connection("loopback", Direct(place), QUICK), "my-board") as runner:
            result = runner.run(large, replace(SHORT, vocabulary=20_000))
        assert traffic.cuts == 1
    # The part in hand is sent again, and nothing else.
    assert large.size_bytes < traffic.sent_bytes < large.size_bytes + PART_BYTES
    assert isinstance(result, Measurement), result


def test_a_full_disk_is_a_failure_and_leaves_nothing_behind(disk, large, tiny):  # noqa: F811
    disk.resize(4 * 2**20)
    with agent(disk.folder) as started, RemoteRunner(started.connection(), "my-board") as runner:
        result = runner.run(large, replace(SHORT, vocabulary=20_000))
        assert isinstance(result, Failure)
        assert result.reason.startswith("disk full: ")
        assert list(started.store.iterdir()) == []
        assert isinstance(runner.run(tiny, SHORT), Measurement)
