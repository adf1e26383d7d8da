"""Libraries for 64-bit Arm, executed on an emulated core that traps on every instruction the real one lacks."""

import os
import re
import signal
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

from autocompress.compiler.build import build
from autocompress.compiler.target import Target, machine_of
from autocompress.shape import BITS
from tests.boards import build_arm64
from tests.boards.cases import BATCH, TOKENS, assert_reference, encoder, inputs, integer_product
from tests.compiler.numpy_graph import NARROW
from tests.compiler.running import compiled

pytestmark = pytest.mark.board

PLATFORM = "aarch64-linux-gnu"
CORES = {"cortex-a53": "cortex-a53", "cortex-a72": "cortex-a72", "cortex-a76": "cortex-a76", "neoverse-v1": "max"}
"""LLVM's name of a core -> qemu's; the newest is known to it only as a core that has everything."""
DOTS = {
    "cortex-a76": {8: {"sdot"}, 4: {"sdot"}, 3: {"sdot"}, 2: {"sdot"}},
    "neoverse-v1": {16: {"bfdot"}, 8: {"usdot"}, 4: {"sdot"}, 3: {"sdot"}, 2: {"sdot"}},
}
"""Core, bits -> the dot products that its kernels use; older cores have none."""


@pytest.fixture(scope="module")
def root():
    return build_arm64.finished(build_arm64.default_folder())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return a function that builds the encoder for a core, once."""
    built = {}

    def library(cpu, bits):
        if (cpu, bits) not in built:
            path = tmp_path_factory.mktemp("library") / "model"
            size = {"tokens": TOKENS, "batch": BATCH}
            target = {"mcpu": cpu, "mtriple": PLATFORM}
            built[cpu, bits] = build(*encoder(bits), path, engine="tvm", **size, target=target)
        return built[cpu, bits]

    return library


def run_on(root, cpu, artifacts, folder, *options):
    """Run artifacts of one engine on the board; return the finished process, and the files of their logits."""
    np.savez(folder / "inputs.npz", **dict(zip(("ids", "mask"), inputs(), strict=True)))
    program = [str(build_arm64.PROJECT / "tests/boards/on_board.py"), artifacts[0].engine, "inputs.npz"]
    paths = [str(artifact.path) for artifact in artifacts]
    command = build_arm64.python(root, cpu, *program, *paths, *options)
    surroundings = build_arm64.environment(root)
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=600)
    return done, [folder / f"{number}.npy" for number in range(len(artifacts))]


def answers(root, cpu, artifacts, folder):
    """Return the logits of artifacts, all by one process: the board's Python takes seconds to begin."""
    done, files = run_on(root, cpu, artifacts, folder)
    assert done.returncode == 0, done.stderr
    return [np.load(file) for file in files]


def instructions(artifact):
    """Return the names of all instructions in a library."""
    command = ["aarch64-linux-gnu-objdump", "--disassemble", "--no-show-raw-insn", str(artifact.path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^ *[0-9a-f]+:\t(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("cpu", CORES)
def test_libraries_compute_the_reference_on_their_own_core(root, library, cpu, tmp_path):
    found = answers(root, CORES[cpu], [library(cpu, bits) for bits in BITS], tmp_path)
    stored = machine_of(Target(cpu, PLATFORM).llvm()).half.stored
    for bits, logits in zip(BITS, found, strict=True):
        assert_reference(logits, bits, NARROW[stored])


def test_onnx_models_compute_the_reference_on_the_board(root, tmp_path):
    size = {"engine": "onnxruntime", "tokens": TOKENS, "batch": BATCH}
    models = [build(*encoder(bits), tmp_path / f"model{bits}", **size) for bits in BITS]
    for bits, logits in zip(BITS, answers(root, "cortex-a76", models, tmp_path), strict=True):
        assert_reference(logits, bits)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("cpu", CORES)
def test_dot_products_are_used_where_the_core_has_them_and_only_there(library, cpu, bits):
    found = instructions(library(cpu, bits))
    assert "fmla" in found
    assert found & {"sdot", "usdot", "bfdot"} == DOTS.get(cpu, {}).get(bits, set())


@pytest.mark.parametrize("bits", [16, 8, 4, 3, 2])
def test_a_library_for_a_newer_core_is_refused_by_one_that_lacks_its_instructions(root, library, bits, tmp_path):
    done, (logits,) = run_on(root, "cortex-a53", [library("cortex-a76", bits)], tmp_path)
    assert "compiled for aarch64-linux-gnu cortex-a76; this processor lacks asimddp" in done.stderr
    assert not logits.exists()


@pytest.mark.parametrize("bits", [16, 8, 4, 3, 2])
def test_its_instructions_would_end_the_process(root, library, bits, tmp_path):
    done, (logits,) = run_on(root, "cortex-a53", [library("cortex-a76", bits)], tmp_path, "--unchecked")
    assert done.returncode == -signal.SIGILL, done.stderr
    assert not logits.exists()


@contextmanager
def rpc_server(root, cpu):
    """Start TVM's RPC server on the board, bound to loopback, and give its port."""
    # The server that TVM's command starts lives in a second Python, which only a kernel with binfmt could start.
    program = (
        "from tvm.rpc.server import PopenRPCServerState;"
        "print(PopenRPCServerState('127.0.0.1', 9190, 9290, silent=True).port, flush=True)"
    )
    command = build_arm64.python(root, cpu, "-c", program)
    # A session of its own, since every connection is served by a process of its own.
    options = {"env": build_arm64.environment(root), "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as server:
        try:
            yield int(server.stdout.readline())
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def test_a_kernel_is_uploaded_and_run_over_rpc(root, tmp_path):
    import tvm
    from tvm.support import cc

    rng = np.random.default_rng(4)
    q, weight = rng.integers(0, 256, (5, 37)), rng.integers(-128, 128, (37, 21), dtype=np.int8)
    llvm = Target("cortex-a76", "aarch64-linux-gnu").llvm()
    kernel, given = integer_product(machine_of(llvm), q, weight)
    path = tmp_path / "kernel.so"
    compiled(kernel, llvm).export_library(str(path), fcompile=cc.cross_compiler("aarch64-linux-gnu-g++"))
    with rpc_server(root, "cortex-a76") as port:
        remote = tvm.rpc.connect("127.0.0.1", port, session_timeout=120)
        remote.upload(bytearray(path.read_bytes()), "kernel.so")
        tensors = [tvm.runtime.tensor(value, remote.cpu()) for value in (*given, np.empty((5, 21), np.float32))]
        remote.load_module("kernel.so")["kernel"](*tensors)
        # Below 2^24 every integer is a float32, so equality is exact.
        np.testing.assert_array_equal(tensors[-1].numpy(), q @ weight.astype(np.int64))
