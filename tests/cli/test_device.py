"""Boards at the command line: added, listed, probed, served."""

from __future__ import annotations

import pytest

from autocompress.cli import main
from tests.boards.agents import agent


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")


def run(capsys, *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["device", *words])
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    return out + err


def test_a_board_is_added_listed_and_probed_and_then_has_a_profile(capsys, tmp_path):
    with agent(tmp_path / "board") as started:
        assert "device probe my-board" in run(capsys, "add", "my-board", "--rpc", str(started.place))
        listed = run(capsys, "list")
        assert "not probed yet" in listed
        assert str(started.place) in listed
        found = run(capsys, "probe", "my-board")
        assert "round trip" in found
        assert "Written to" in found
        assert "Checked against" in run(capsys, "probe", "my-board")
        assert "not probed yet" not in run(capsys, "list")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--tracker", "10.0.0.1:9190"),
        ("--rpc", "10.0.0.1:9190", "--ssh", "pi@rpi4"),
        ("--rpc", "10.0.0.1"),
        ("--ssh", "-oProxyCommand=reboot"),
        ("--ssh", "pi@rpi4", "--python", "python3; reboot"),
    ],
)
def test_a_way_that_is_none_is_bad_input(capsys, options):
    assert "Next:" in run(capsys, "add", "my-board", *options, code=2)
    assert "my-board" not in run(capsys, "list")


def test_a_board_that_was_never_added_is_unreachable(capsys):
    assert "device add my-board" in run(capsys, "probe", "my-board", code=4)


def test_an_agent_that_cannot_listen_says_what_to_do(capsys, tmp_path):
    with agent(tmp_path / "board") as started:
        assert "--port" in run(capsys, "serve", "--port", str(started.port), code=2)
