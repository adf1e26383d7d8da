"""``autocompress search --launch ray``, on a cluster of this machine alone."""

import signal
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from autocompress.errors import ConfigError, MissingDependencyError
from autocompress.pipeline.launching import on_ray
from tests.cli.test_worker import SMALL, choices, journal, who_scored
from tests.cli.world import World

pytestmark = pytest.mark.slow


@pytest.mark.ray
def test_two_workers_on_ray_help_a_search_and_end_with_it(tmp_path):
    """What is found is what one process finds; the workers of the cluster scored some of it."""
    pytest.importorskip("ray")
    world = World(tmp_path)
    many = (*SMALL, "search.trials=40")
    alone = world.run("search", "first.yaml", "name=alone", *many)
    assert alone.returncode == 0, alone.stderr
    search = world.start("search", "first.yaml", "name=placed", *many, "--launch", "ray", "--workers", "2")
    deadline = time.monotonic() + 200
    while not any("ray::_join" in process.info["name"] for process in psutil.process_iter(["name"])):
        assert search.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    search.send_signal(signal.SIGSTOP)  # Not before: the process that places a task hands it over itself.
    while not who_scored(journal(world, "placed"), "placed") - {search.pid}:
        assert search.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    search.send_signal(signal.SIGCONT)
    out, err = search.communicate(timeout=200)
    assert search.returncode == 0 and "PASS" in out, err
    assert choices(journal(world, "placed"), "placed") == choices(journal(world, "alone"), "alone")
    assert "2 workers are placed on Ray" in (tmp_path / "runs/placed/events.jsonl").read_text()
    assert "did not end well" not in (tmp_path / "runs/placed/events.jsonl").read_text()


class Ray:
    """A cluster of two machines, as far as is asked about it before anything is placed."""

    def __init__(self) -> None:
        self.connected = False
        self.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")

    def init(self, **how: object) -> None:
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def nodes(self) -> list[dict[str, object]]:
        addresses = {"10.0.0.1": True, "10.0.0.2": True, "10.0.0.3": False}
        return [{"NodeManagerAddress": address, "Alive": alive} for address, alive in addresses.items()]


def test_a_study_in_a_file_is_refused_where_workers_on_other_machines_could_not_reach_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", cluster := Ray())
    with pytest.raises(ConfigError, match="has 2 machines") as caught, on_ray(2)("run", "journal:runs/x", print):
        pytest.fail("nothing is to be placed")
    assert "postgresql://" in caught.value.next_step and not cluster.connected


def test_a_missing_ray_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="'ray' is not installed") as caught:
        on_ray(2)
    assert "autocompress[ray]" in caught.value.next_step


def test_a_number_of_workers_without_a_place_for_them_is_refused(tmp_path):
    world = World(tmp_path)
    done = world.answer("search", "first.yaml", "--workers", "2")
    assert done.returncode == 2 and "Add --launch ray" in done.stderr
