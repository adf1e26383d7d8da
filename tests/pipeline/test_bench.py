"""The way to a device, over a real agent where there is one."""

from functools import partial

import pytest

from autocompress.boards.address import Direct, Place, save
from autocompress.boards.connection import Patience
from autocompress.boards.ssh import reach
from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.devices.load import load_profile
from autocompress.errors import ConfigError, DeviceError
from autocompress.pipeline import bench
from autocompress.pipeline.bench import answers, is_added, reach_device, reach_runner, resumable
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import LayerShape, ModelShape
from tests.boards.agents import agent, free_port

TINY = ModelShape("bert", 50, 16, 32, 32, (LayerShape(2, 8, 64),), 3)
HASTY = Patience(connect_s=2, call_s=5, pauses_s=())


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path / "home"))


@pytest.fixture
def board():
    return load_profile("raspberry-pi-4")


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("board")) as started:
        yield started


def test_this_machine_is_always_there_and_needs_no_bench():
    host = load_profile("host")
    assert answers(host) and not is_added(host)
    with reach_device(host, engines=("tvm",)) as found, reach_runner(host, keeps=1) as runner:
        assert found is None and runner == LocalRunner("host")


def test_a_board_that_was_never_added_is_not_there(board):
    assert not answers(board) and not is_added(board)
    with reach_device(board) as found:
        assert found is None


def test_a_board_that_was_added_measures_under_its_name_and_is_left_empty(board, serving, tmp_path):
    save(board.name, Direct(serving.place))
    assert is_added(board) and answers(board)
    artifact = build(TINY, random_weights(TINY), tmp_path / "model", engine="onnxruntime", tokens=8)
    with reach_runner(board, keeps=2) as runner:
        measured = runner.run(artifact, Timing(1, TINY.vocabulary, repeats=5, cap_s=0.1))
        assert len(list(serving.store.iterdir())) == 1
    assert (measured.device, measured.provenance["board"]) == (board.name, str(serving.place))
    assert list(serving.store.iterdir()) == []


@pytest.mark.parametrize(("engines", "timed"), [(("onnxruntime",), False), (("tvm", "onnxruntime"), True)])
def test_kernels_are_timed_only_for_the_compiler(board, engines, timed):
    save(board.name, Direct(Place("127.0.0.1", free_port())))
    with reach_device(board, engines=engines) as found:  # Nothing is asked of it: it need not be there.
        assert found is not None
        assert found.target == board.tvm_target and (found.timer is not None) == timed


def test_a_board_that_was_added_and_is_away_is_an_error_in_three_parts(board, monkeypatch):
    save(board.name, Direct(Place("127.0.0.1", free_port())))
    monkeypatch.setattr(bench, "reach", partial(reach, patience=HASTY))
    with pytest.raises(DeviceError, match="did not answer while asked whether it is there") as caught:
        answers(board)
    assert board.name in caught.value.wrong and f"device probe {board.name}" in caught.value.next_step


def test_only_the_error_of_a_device_says_that_the_command_can_be_resumed():
    with pytest.raises(DeviceError) as caught, resumable():
        raise DeviceError("It is gone.", right="It is there.", next_step="Plug it in.")
    assert (caught.value.wrong, caught.value.right) == ("It is gone.", "It is there.")
    assert caught.value.next_step.startswith("Plug it in. ") and "--resume" in caught.value.next_step
    with pytest.raises(ConfigError) as other, resumable():
        raise ConfigError("It is misspelt.", right="It is spelt.", next_step="Spell it.")
    assert other.value.next_step == "Spell it."
