"""The memory of a process that runs a compiled library against what is known of it before it is compiled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.compiler.lowering import lower
from autocompress.compiler.memory import activation_bytes, constant_bytes, workspace_bytes
from autocompress.compiler.target import Target, machine_of
from autocompress.cost import Measurement
from autocompress.engines import LIBRARY_MARK
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import LayerShape, ModelShape, by_block


def shape(layers: int, bits: int) -> ModelShape:
    return ModelShape("bert", 64, 512, 256, 256, (LayerShape(4, 64, 1024, *by_block(bits, bits)),) * layers, 2)


def known_and_measured(folder: Path, shape: ModelShape, tokens: int, batch: int) -> tuple[int, int]:
    """Bytes of constants, values and workspace, and how far a fresh process grows to load and run the library."""
    program = lower(shape, tokens=tokens, batch=batch, machine=machine_of(Target.host().llvm()))
    artifact = build(shape, random_weights(shape), folder / "model", engine="tvm", tokens=tokens, batch=batch)
    measured = LocalRunner("host").run(artifact, Timing(1, shape.vocabulary, warmup=1, repeats=2))
    assert isinstance(measured, Measurement), measured
    known = constant_bytes(program) + activation_bytes(program) + workspace_bytes(program, threads=1)
    return known, measured.peak_memory_bytes - measured.base_memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(("layers", "tokens", "batch"), [(8, 8, 1), (1, 256, 16)], ids=["weights", "activations"])
def test_a_process_grows_by_the_weights_and_the_planned_activations(tmp_path, bits, layers, tokens, batch):
    """Beside them grow its code, its inputs and the remainders of pages: half a megabyte at most."""
    (small, before), (large, after) = (
        known_and_measured(tmp_path, shape(count, bits), *sizes)
        for count, sizes in ((1, (8, 1)), (layers, (tokens, batch)))
    )
    assert large - small > 2e6
    assert after - before == pytest.approx(large - small, abs=512 * 1024)


def test_a_library_tells_its_activation_bytes(tmp_path):
    small = shape(1, 32)
    artifact = build(small, random_weights(small), tmp_path / "model", engine="tvm", tokens=8)
    data = artifact.path.read_bytes()[: -len(LIBRARY_MARK)]
    index = json.loads(data[-8 - int.from_bytes(data[-8:], "little") : -8])
    program = lower(small, tokens=8, machine=machine_of(Target.host().llvm()))
    assert index["activation_bytes"] == activation_bytes(program)
