"""The whole way of a board, on the emulated one: added, probed, profiled, killed, resumed, predicted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compiler.dots import sdot
from autocompress.compiler.target import Target, machine_of
from autocompress.devices.load import read_profile
from tests.boards.agents import wait_until
from tests.boards.arm64_agent import CPU, EMULATOR, arm64_agent

pytestmark = pytest.mark.board

NAME = "emulated-board"
ENGINE = "tvm"
"""The one whose models are compiled for the board; both of them run there in ``test_arm64_agent``."""
SAMPLES = 12
"""As many as there are corners, which are all measured."""
SETTINGS = ("--tokens", "8", "--samples", str(SAMPLES), "--tune", "off")
TIMEOUT_S = 1200


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with arm64_agent(tmp_path_factory.mktemp("arm64")) as started:
        yield started


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a model that an emulated processor runs in a moment."""
    folder = tmp_path_factory.mktemp("teacher")
    config = BertConfig(
        vocab_size=60,
        max_position_embeddings=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@contextmanager
def command(home, *words):
    """Start a command of the user, which ends with the block."""
    variables = os.environ | {"AUTOCOMPRESS_HOME": str(home), "COLUMNS": "200"}
    line = [sys.executable, "-m", "autocompress", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables) as started:
        try:
            yield started
        finally:
            started.kill()


def finished(home, *words):
    with command(home, *words) as started:
        out, _ = started.communicate(timeout=TIMEOUT_S)
    return started.returncode, out


def succeeds(home, *words):
    code, out = finished(home, *words)
    assert code == 0, out
    return out


def noted(home, name=NAME):
    """Return the samples in the journal of a board."""
    files = sorted(home.glob(f"samples/{name}-*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n") and "shape" in json.loads(line)]


def bits(sample):
    return {layer["attention_in_bits"] for layer in sample["shape"]["layers"]}


@pytest.fixture(scope="module")
def probed(board, home):
    """The name of the board, after it was added and probed."""
    succeeds(home, "device", "add", NAME, "--rpc", str(board.place))
    assert EMULATOR in succeeds(home, "device", "probe", NAME)
    return NAME


def test_a_probe_writes_a_profile_that_says_it_is_emulated(probed, home):
    profile = read_profile(home / f"device_profiles/{probed}.yaml")
    assert profile.emulated == EMULATOR
    assert profile.architecture == "aarch64"
    assert profile.tvm_target["mcpu"] == CPU
    assert machine_of(Target.of(profile.tvm_target).llvm()).dot == sdot()


def test_a_profiling_whose_agent_and_host_are_killed_is_resumed_and_predicts(board, probed, home, teacher):
    profiling = ("profile", probed, "--engine", ENGINE, "--model", teacher, *SETTINGS)
    with command(home, *profiling) as started:
        wait_until(lambda: len(noted(home)) >= 2, timeout_s=TIMEOUT_S)
        killed = board.server()
        killed.send_signal(signal.SIGKILL)
        wait_until(lambda: len(noted(home)) >= 4, timeout_s=TIMEOUT_S)
        started.kill()
    assert board.server() != killed
    before = noted(home)
    assert len(before) < SAMPLES
    succeeds(home, *profiling, "--resume")
    after = noted(home)
    assert after[: len(before)] == before
    assert all("measurement" in sample for sample in after), after
    assert all(sample["measurement"]["provenance"]["emulated"] == EMULATOR for sample in after)
    assert len({json.dumps(sample["shape"]) for sample in after[:SAMPLES]}) == SAMPLES
    assert {4, 8, 32} <= set().union(*map(bits, after))
    (fitted,) = home.glob(f"latency_models/{probed}-{ENGINE}-*.json")
    assert len(json.loads(fitted.read_text())["samples"]) == SAMPLES
    asked = ("--device", probed, "--engine", ENGINE, "--model", teacher, "--tokens", "8", "--bits", "8")
    said = succeeds(home, "predict", *asked)
    assert f"{EMULATOR} emulated" in said
    assert "not calibrated" in said


def test_an_emulator_that_passes_for_a_real_board_is_refused_and_leaves_no_model(board, home, teacher):
    succeeds(home, "device", "add", "raspberry-pi-4", "--rpc", str(board.place))
    code, out = finished(home, "profile", "raspberry-pi-4", "--model", teacher, *SETTINGS)
    assert code == 4, out
    assert f"emulated by {EMULATOR}" in out
    assert "Right:" in out and "under another name" in out
    assert not list(home.glob("latency_models/raspberry-pi-4-*"))
    assert list(home.glob("samples/raspberry-pi-4-*")) and not noted(home, name="raspberry-pi-4")
