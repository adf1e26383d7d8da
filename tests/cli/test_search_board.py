"""``autocompress search`` for a board on loopback that is away before training, and again before its measurements."""

from __future__ import annotations

import json

import pytest

from autocompress.boards.address import Place
from tests.boards.agents import agent, wait_until
from tests.cli.world import World

SEARCH = ("search", "first.yaml", "device.profile=my-board", "export.formats=[onnxruntime]")


def add(world: World, place: Place) -> None:
    done = world.answer("device", "add", "my-board", "--rpc", str(place))
    assert done.returncode == 0, done.stderr


def refining(world: World) -> bool:
    events = world.folder / "runs/first/events.jsonl"
    return events.exists() and '"refine candidate 1"' in events.read_text()


@pytest.mark.slow
def test_the_finalists_of_a_board_are_measured_on_it_however_often_it_was_away(tmp_path):
    world = World(tmp_path)
    students = tmp_path / "runs/first/students"
    with agent(tmp_path / "board") as board:
        add(world, board.place)
        assert world.answer("device", "probe", "my-board").returncode == 0

    away = world.answer(*SEARCH)
    assert away.returncode == 4, away.stdout
    assert "my-board" in away.stderr and "device probe my-board" in away.stderr and "--resume" in away.stderr
    assert not (tmp_path / "home/cache/teachers").exists()

    with agent(tmp_path / "board") as board:
        add(world, board.place)
        searching = world.start(*SEARCH, "--resume")
        wait_until(lambda: refining(world) or searching.poll() is not None, timeout_s=600)
    _, err = searching.communicate(timeout=600)
    assert searching.returncode == 4, err
    assert "did not answer" in err and "--resume" in err
    assert (tmp_path / "home/latency_models/my-board-onnxruntime-1t.json").is_file()
    kept = {path: path.stat().st_mtime_ns for path in students.glob("*.safetensors")}
    assert len(kept) >= 2

    with agent(tmp_path / "board") as board:
        add(world, board.place)
        done = world.answer(*SEARCH, "--resume")
        assert done.returncode == 0, done.stderr
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert list(board.store.iterdir()) == []  # What was sent is taken away.
    assert done.stdout.count("PASS") == 1 and "my-board, onnxruntime, 1 thread" in done.stdout
    manifest = json.loads((tmp_path / "runs/first/best/manifest.json").read_text())
    (measured,) = manifest["measured"].values()
    assert manifest["verdict"] == "pass" and manifest["device"] == measured["device"] == "my-board"
    assert measured["provenance"]["board"] == str(board.place)
    assert manifest["predicted"]["calibrated"] is True
    report = json.loads((tmp_path / "runs/first/result.json").read_text())
    assert {row["role"] for row in report["baselines"]} == {"teacher", "baseline", "student"}
