"""Ways to a board: how often it is tried, and the one that a tracker knows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autocompress.boards.address import Direct, Place, Tracked
from autocompress.boards.connection import Connection, Patience
from autocompress.boards.link import BrokenLinkError
from autocompress.errors import DeviceError
from tests.boards.agents import QUICK, agent, free_port

TRACKER = (
    "import sys; from tvm.rpc.tracker import PopenTrackerServerState;"
    "print(PopenTrackerServerState('127.0.0.1', int(sys.argv[1]), int(sys.argv[1]) + 1, silent=True).port, flush=True)"
)


def failing(times: int):
    """Work whose link breaks so often, and the list of its tries."""
    tries: list[int] = []

    def work() -> str:
        tries.append(len(tries))
        if len(tries) <= times:
            raise BrokenLinkError("cut")
        return "done"

    return work, tries


def paused(pauses_s: tuple[float, ...]) -> tuple[Connection, list[float]]:
    slept: list[float] = []
    place = Direct(Place("127.0.0.1", 1))
    return Connection("rpi4", place, Patience(pauses_s=pauses_s), slept.append), slept


def test_a_broken_link_is_tried_again_after_growing_pauses():
    connection, slept = paused((1.0, 2.0, 4.0))
    work, tries = failing(2)
    assert connection.attempt("working", work) == "done"
    assert (len(tries), slept) == (3, [1.0, 2.0])


def test_a_link_that_stays_broken_is_an_error_that_names_step_board_and_command():
    connection, slept = paused((1.0, 2.0))
    work, tries = failing(99)
    with pytest.raises(DeviceError) as caught:
        connection.attempt("counting sheep", work)
    assert (len(tries), slept) == (3, [1.0, 2.0])
    assert "rpi4 (127.0.0.1:1) did not answer while counting sheep (cut; tried 3 times)" in caught.value.wrong
    assert "device probe rpi4" in caught.value.next_step


def test_a_board_tells_its_facts_and_its_round_trip(serving):
    facts = serving.connection().facts()
    assert facts.system.cpuinfo
    assert facts.bandwidth_gb_s > 0
    assert 0 < serving.connection().round_trip_ms(calls=3) < 1000


def test_a_place_where_something_else_listens_is_an_error(tmp_path):
    command = [sys.executable, "-m", "http.server", str(port := free_port()), "--bind", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, **quiet) as process:
        try:
            connection = Connection("web", Direct(Place("127.0.0.1", port)), Patience(2.0, 2.0, ()))
            with pytest.raises(DeviceError, match="web"):
                connection.ask("ping", step="asking")
        finally:
            process.kill()


def test_a_tracker_gives_the_way_to_the_agent_of_a_key(tmp_path):
    pytest.importorskip("tornado")
    place = Place("127.0.0.1", free_port())
    with subprocess.Popen([sys.executable, "-c", TRACKER, str(place.port)], stdout=subprocess.PIPE) as tracker:
        try:
            assert int(tracker.stdout.readline()) == place.port
            with agent(tmp_path, "--tracker", str(place), "--key", "rpi4"):
                connection = Connection("rpi4", Tracked(place, "rpi4"), QUICK)
                assert [connection.ask("ping", step="asking") for _ in range(2)] == [{}, {}]
                other = Connection("pi5", Tracked(place, "pi5"), Patience(0.5, 0.5, ()))
                with pytest.raises(DeviceError, match="tracker"):
                    other.ask("ping", step="asking")
        finally:
            tracker.kill()
