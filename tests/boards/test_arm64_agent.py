"""The agent on an emulated 64-bit Arm board: compiled here, sent, and run there in a process of its own."""

from __future__ import annotations

import pytest

from autocompress.boards.address import Direct
from autocompress.boards.connection import Connection, Patience
from autocompress.boards.remote import RemoteRunner
from autocompress.boards.remote_timer import RemoteTimer
from autocompress.compiler.build import build
from autocompress.compiler.lowering import lower
from autocompress.compiler.target import Target, machine_of
from autocompress.compiler.tuning import products
from autocompress.cost import Failure, Measurement
from autocompress.devices.detect import profile_of
from autocompress.profiling.timing import Timing
from autocompress.shape import LayerShape, ModelShape, by_block
from tests.boards.arm64_agent import arm64_agent
from tests.boards.cases import BATCH, TOKENS, encoder

pytestmark = pytest.mark.board

SHORT = Timing(1, 50, warmup=1, repeats=5)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Give a connection to an agent on the board."""
    with arm64_agent(tmp_path_factory.mktemp("arm64")) as started:
        yield Connection("emulated", Direct(started.place), Patience(60, 60, (2, 5, 10)))


def test_the_board_describes_itself_as_arm(board):
    profile = profile_of(board.facts().system)
    assert profile.architecture == "aarch64"
    assert set(profile.engines) == {"onnxruntime", "tvm"}


@pytest.mark.parametrize("engine", ["onnxruntime", "tvm"])
@pytest.mark.parametrize("bits", [32, 8])
def test_what_is_compiled_here_is_measured_there(board, tmp_path, engine, bits):
    target = {"mcpu": "cortex-a76", "mtriple": "aarch64-linux-gnu"}
    artifact = build(*encoder(bits), tmp_path / "model", engine=engine, tokens=TOKENS, batch=BATCH, target=target)
    with RemoteRunner(board, "emulated") as runner:
        result = runner.run(artifact, SHORT)
    assert isinstance(result, Measurement), result
    assert len(result.samples_ms) == 5
    assert result.provenance["machine"] == "aarch64"


def test_a_tile_is_timed_there(board):
    target = Target("cortex-a76", "aarch64-linux-gnu")
    shape = ModelShape("bert", 50, 32, 24, 24, (LayerShape(4, 6, 45, *by_block(8, 8)),), 3)
    wanted = products([lower(shape, tokens=5, machine=machine_of(target.llvm()))])
    kernel = next(kernel for kernel in wanted.values() if kernel.family == "gemm_i8")
    with RemoteTimer(board, target) as timer:
        times_us = timer({"8-bit": kernel})(["8-bit"] * 3)["8-bit"]
    assert len(times_us) == 3 and min(times_us) > 0


def test_a_library_for_another_architecture_is_a_failure(board, tmp_path):
    artifact = build(*encoder(8), tmp_path / "model", engine="tvm", tokens=TOKENS, batch=BATCH)
    with RemoteRunner(board, "emulated") as runner:
        result = runner.run(artifact, SHORT)
    assert isinstance(result, Failure)
    assert result.reason.startswith("refused: ")
    assert "this processor lacks" in result.reason
