"""Kernels for processors without a TVM runtime, executed one after another by a small program under qemu."""

import subprocess
from itertools import product

import numpy as np
import pytest

from autocompress.compiler.build import build
from autocompress.compiler.program import Tensor
from autocompress.compiler.target import Target, machine_of
from autocompress.shape import BITS
from tests.boards.cases import TOKENS, assert_reference, encoder, grouped_encoder, inputs, integer_product
from tests.boards.harness import Processor, called, given, room, run_encoder

pytestmark = pytest.mark.board

PROCESSORS = {
    "armv7": Processor(
        Target("cortex-a7", "armv7a-linux-gnueabihf", ("+neon",)),
        "arm-linux-gnueabihf",
        ("qemu-arm-static", "-cpu", "cortex-a7"),
    ),
    "riscv64": Processor(
        Target("sifive-u74", "riscv64-unknown-linux-gnu"),
        "riscv64-linux-gnu",
        ("qemu-riscv64-static", "-cpu", "sifive-u54"),
    ),
    "riscv64-generic": Processor(
        Target("generic-rv64", "riscv64-unknown-linux-gnu", ("+m", "+a", "+f", "+d", "+c")),
        "riscv64-linux-gnu",
        ("qemu-riscv64-static", "-cpu", "sifive-u54"),
    ),
}


ARM64 = {
    cpu: Processor(Target(cpu, "aarch64-linux-gnu"), "aarch64-linux-gnu", ("qemu-aarch64-static", "-cpu", cpu))
    for cpu in ("cortex-a53", "cortex-a76")
}
"""Without dot products, and with those of signed bytes alone."""


# Weights of 3 bits are packed as those of 4 are, so one processor stands for all.
@pytest.mark.parametrize(("name", "bits"), [("armv7", 3), *product([*PROCESSORS, *ARM64], [8, 4, 2])])
def test_weights_in_groups_of_any_size_compute_the_reference(name, bits, tmp_path):
    processor = (PROCESSORS | ARM64)[name]
    dot = machine_of(processor.target.llvm()).in_groups(bits)
    assert dot.signed == (name == "cortex-a76")
    logits = run_encoder(processor, *grouped_encoder(bits), list(inputs()), tmp_path)
    assert_reference(logits, bits, case=grouped_encoder)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", PROCESSORS)
def test_an_encoder_computes_the_reference(name, bits, tmp_path):
    assert_reference(run_encoder(PROCESSORS[name], *encoder(bits), list(inputs()), tmp_path), bits)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_library_is_linked_by_the_compiler_of_its_platform(name, tmp_path):
    PROCESSORS[name].check()
    target = PROCESSORS[name].target
    library = build(*encoder(32), tmp_path / "model", engine="tvm", tokens=TOKENS, target=target)
    # The machine in the ELF header: EM_ARM or EM_RISCV.
    assert int.from_bytes(library.path.read_bytes()[18:20], "little") == (40 if name == "armv7" else 243)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_integer_product_is_exact(name, tmp_path):
    processor, rng = PROCESSORS[name], np.random.default_rng(5)
    q, weight = rng.integers(0, 256, (5, 37)), rng.integers(-128, 128, (37, 21), dtype=np.int8)
    kernel, values = integer_product(machine_of(processor.target.llvm()), q, weight)
    tensors = [Tensor(f"t{index}", value.shape, str(value.dtype)) for index, value in enumerate(values)]
    y = Tensor("y", (5, 21))
    lines = [*map(given, tensors, values), room(y), called("kernel", [*tensors, y]), b"write y\n"]
    found = processor.run(processor.link({"kernel": kernel}, tmp_path), b"".join(lines), y)
    # Below 2^24 every integer is a float32, so equality is exact.
    np.testing.assert_array_equal(found, q @ weight.astype(np.int64))


def test_a_kernel_that_is_given_too_few_tensors_says_so(tmp_path):
    processor = PROCESSORS["armv7"]
    kernel, _ = integer_product(machine_of(processor.target.llvm()), np.ones((2, 3), int), np.ones((3, 4), np.int8))
    executable, y = processor.link({"kernel": kernel}, tmp_path), Tensor("y", (2, 4))
    with pytest.raises(subprocess.CalledProcessError) as failure:
        processor.run(executable, room(y) + called("kernel", [y]), y)
    assert b"kernel failed" in failure.value.stderr
