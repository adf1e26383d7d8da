"""A board, a tracker and two hosts on a network of their own, and all that can happen to its cables."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from autocompress.boards.address import PORT
from autocompress.boards.connection import Patience
from autocompress.boards.uploads import PART_BYTES
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.errors import DeviceError
from autocompress.profiling.timing import Timing
from tests.boards.agents import Agent, agent, surroundings, wait_until
from tests.boards.far_host import Order
from tests.boards.network import Machine, network

PROJECT = Path(__file__).parents[2]
SHORT = Timing(1, 50, warmup=1, repeats=6, timeout_s=30)
UPLOAD = replace(SHORT, vocabulary=20_000)
CALM = Patience(connect_s=20, call_s=20, pauses_s=(0.5, 1.0, 2.0, 4.0))
HURRIED = Patience(connect_s=2, call_s=1, pauses_s=(0.2,))
MEGABITS = 40
"""At which ten megabytes are on their way for two seconds."""
TRACKER = (
    "import sys; from tvm.rpc.tracker import PopenTrackerServerState;"
    f"print(PopenTrackerServerState(sys.argv[1], {PORT}, {PORT + 1}, silent=True).port, flush=True)"
)


@dataclass(frozen=True)
class Host:
    """A user on a machine, who has added the board ``far``."""

    machine: Machine
    home: Path

    def add(self, *way: str) -> Host:
        self._run("autocompress", "device", "add", "far", *way).communicate(timeout=300)
        return self

    def measure(self, artifact: Artifact, timing: Timing, patience: Patience = CALM, times: int = 1) -> Measuring:
        process = self._run("tests.boards.far_host")
        process.stdin.write(pickle.dumps(Order("far", artifact, timing, patience, times)))
        process.stdin.close()
        process.stdin = None
        return Measuring(process)

    def _run(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [*self.machine.inside, sys.executable, "-m", module, *words]
        return subprocess.Popen(command, **pipes, cwd=PROJECT, env=surroundings(self.home))


@dataclass(frozen=True)
class Measuring:
    """A host's process that measures."""

    process: subprocess.Popen[bytes]

    def result(self, timeout_s: float = 300) -> list[Measurement | Failure] | DeviceError:
        try:
            return pickle.loads(self.process.communicate(timeout=timeout_s)[0])
        finally:
            self.process.kill()

    def kill(self) -> list[psutil.Process]:
        """Kill it; return what it had started."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.communicate()
        return started


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Board, tracker, and two hosts."""
    with network(4) as found:
        yield found


@pytest.fixture
def board(machines, tmp_path) -> Iterator[Agent]:
    with agent(tmp_path / "board", inside=machines[0].inside, host=machines[0].address) as started:
        yield started


@pytest.fixture
def hosts(machines, board, tmp_path) -> list[Host]:
    """Two hosts that have added the board."""
    return [Host(machine, tmp_path / machine.port).add("--rpc", str(board.place)) for machine in machines[2:]]


@contextmanager
def tracker(machine: Machine, bind: str) -> Iterator[None]:
    command = [*machine.inside, sys.executable, "-c", TRACKER, bind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert int(process.stdout.readline()) == PORT
            yield
        finally:
            process.kill()


def uploaded_bytes(board: Agent) -> int:
    return sum(path.stat().st_size for path in board.store.iterdir())


def in_the_middle_of_an_upload(board: Agent, artifact: Artifact) -> None:
    """Wait for more than half of it, so that what begins anew is told from what goes on."""
    wait_until(lambda: uploaded_bytes(board) > artifact.size_bytes / 2)
    assert uploaded_bytes(board) < artifact.size_bytes


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_board_is_measured_from_another_machine(hosts, board, tiny):
    (result,) = hosts[0].measure(tiny, SHORT).result()
    assert isinstance(result, Measurement), result
    assert (result.device, len(result.samples_ms)) == ("far", SHORT.repeats)
    assert result.provenance["board"] == str(board.place)


@pytest.mark.parametrize("where", ["elsewhere", "on the board"])
def test_a_tracker_tells_where_the_board_is(machines, tiny, tmp_path, where):
    far, third, near, _ = machines
    keeper, seen_from_board = (third, third.address) if where == "elsewhere" else (far, "127.0.0.1")
    options = ("--tracker", f"{seen_from_board}:{PORT}", "--key", "rpi4")
    with (
        tracker(keeper, "0.0.0.0"),
        agent(tmp_path / "board", *options, inside=far.inside, host=far.address),
    ):
        host = Host(near, tmp_path / "near").add("--tracker", f"{keeper.address}:{PORT}", "--key", "rpi4")
        results = host.measure(tiny, SHORT, times=2).result()
    assert [getattr(result, "device", result) for result in results] == ["far", "far"]


@pytest.mark.parametrize("cut", ["down", "unplug"])
@pytest.mark.parametrize(
    "call_s",
    [pytest.param(20, id="in the same session"), pytest.param(1, id="in a new session", marks=pytest.mark.slow)],
)
def test_an_upload_goes_on_when_the_link_is_back(machines, hosts, board, large, cut, call_s):
    machines[0].slow(MEGABITS)
    before = machines[0].received_bytes()
    measuring = hosts[0].measure(large, UPLOAD, replace(CALM, call_s=call_s))
    in_the_middle_of_an_upload(board, large)
    sessions = psutil.Process(measuring.process.pid).children()
    getattr(machines[0], cut)()
    if call_s == 1:
        wait_until(lambda: all(ended(session) for session in sessions))
    else:
        time.sleep(1.0)
    {"down": machines[0].up, "unplug": machines[0].plug}[cut]()
    (result,) = measuring.result()
    assert isinstance(result, Measurement), result
    # The part in hand is sent again, and frames have headers.
    assert machines[0].received_bytes() - before < 1.1 * (large.size_bytes + PART_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["down", "unplug"])
def test_a_link_that_stays_cut_is_an_error_within_the_patience(machines, hosts, board, large, cut):
    machines[0].slow(MEGABITS)
    measuring = hosts[0].measure(large, UPLOAD, HURRIED)
    in_the_middle_of_an_upload(board, large)
    getattr(machines[0], cut)()
    # Twice: for the measurement, and for the question whether the board is there at all.
    tries = 2 * HURRIED.tries
    error = measuring.result(timeout_s=10 + tries * (HURRIED.connect_s + HURRIED.call_s + max(HURRIED.pauses_s)))
    assert isinstance(error, DeviceError)
    assert f"far ({board.place}) did not answer while measuring model.onnx" in error.wrong
    assert error.right
    assert "device probe far" in error.next_step


@pytest.mark.slow
def test_every_third_packet_may_be_lost(machines, hosts, tiny):
    machines[0].lose(30)
    (result,) = hosts[0].measure(tiny, SHORT).result(timeout_s=240)
    assert isinstance(result, Measurement), result


def test_a_host_that_is_killed_leaves_the_board_to_the_next(hosts, board, tiny):
    lost = hosts[0].measure(tiny, replace(SHORT, repeats=10**9, cap_s=2.0))
    wait_until(board.worker)
    started = lost.kill()
    (result,) = hosts[1].measure(tiny, SHORT).result()
    assert isinstance(result, Measurement), result
    assert started
    assert all(ended(one) for one in started)


@pytest.mark.slow
def test_a_host_that_vanishes_leaves_the_board_to_the_next(machines, hosts, board, large, tiny):
    machines[0].slow(MEGABITS)
    lost = hosts[0].measure(large, UPLOAD, Patience())
    in_the_middle_of_an_upload(board, large)
    machines[2].unplug()
    started = lost.kill()
    (result,) = hosts[1].measure(tiny, SHORT).result()
    assert isinstance(result, Measurement), result
    wait_until(lambda: all(ended(one) for one in started))


def test_two_hosts_measure_at_once(hosts, board, tiny, large):
    first = hosts[0].measure(tiny, SHORT, times=3)
    second = hosts[1].measure(large, UPLOAD, times=2)
    sizes = [[getattr(one, "size_bytes", one) for one in running.result()] for running in (first, second)]
    assert sizes == [[tiny.size_bytes] * 3, [large.size_bytes] * 2]
    assert list(board.store.iterdir()) == []
