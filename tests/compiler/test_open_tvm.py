import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from autocompress import engines
from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.compiler.lowering import lower
from autocompress.compiler.target import Target, machine_of
from autocompress.compiler.tuning import products
from autocompress.compiler.tuning_log import Entry, TuningLog, tvm_version
from autocompress.cost import Artifact
from autocompress.engines import append_constants, library_index, open_artifact, read_library
from autocompress.errors import UnsupportedError
from autocompress.feeds import TEXT, Feed, of_text
from autocompress.shape import LayerShape, ModelShape
from tests.compiler.numpy_graph import reference

SHAPE = ModelShape("bert", 50, 32, 24, 24, (LayerShape(2, 12, 40),), classes=3)
WEIGHTS = random_weights(SHAPE)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return build(SHAPE, WEIGHTS, tmp_path_factory.mktemp("library") / "model", engine="tvm", tokens=10)


def test_a_shorter_batch_is_padded_and_run_row_by_row(artifact):
    ids = np.random.default_rng(0).integers(0, 50, (3, 7))
    mask = (np.arange(7) < np.array([[7], [3], [1]])).astype(np.int64)
    logits = open_artifact(artifact, threads=1)(of_text(ids, mask))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(SHAPE, WEIGHTS, ids, mask), atol=1e-5)


def test_a_library_for_several_sequences_runs_as_many_at_once_and_fills_up_the_last(tmp_path):
    artifact = build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=10, batch=4)
    ids = np.random.default_rng(0).integers(0, 50, (6, 9))
    mask = (np.arange(9) < np.array([[9], [3], [1], [8], [9], [2]])).astype(np.int64)
    logits = open_artifact(artifact, threads=1)(of_text(ids, mask))
    np.testing.assert_allclose(logits, reference(SHAPE, WEIGHTS, ids, mask), atol=1e-5)


def test_two_opened_artifacts_do_not_share_their_inputs(artifact):
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    mask = np.ones_like(ids)
    first, second = (open_artifact(artifact, threads=1) for _ in range(2))
    alone = [first(of_text(ids[:1], mask[:1])), second(of_text(ids[1:], mask[1:]))]
    np.testing.assert_array_equal(np.concatenate(alone), first(of_text(ids, mask)))


def test_tiles_and_traces_of_a_log_change_the_kernels_but_not_the_logits(artifact, tmp_path):
    target = Target.host()
    machine = machine_of(target.llvm())
    entry = Entry(f"3x{machine.lanes}", {}, tvm_version(), "2026-01-02")
    known = products([lower(SHAPE, tokens=10, machine=machine)])
    log = TuningLog(str(target), dict.fromkeys(known, entry))
    tiled = lower(SHAPE, tokens=10, machine=machine, tiles=log.tiles(machine))
    # A trace of no steps leaves the plain loops.
    traces = {str(kernel): "[[], []]" for kernel in tiled.names() if kernel.family == "gemm_f32"}
    traced = TuningLog(str(target), dict.fromkeys(known, replace(entry, traces=traces)))
    ids = np.random.default_rng(0).integers(0, 50, (2, 10))
    expected = open_artifact(artifact, threads=1)(of_text(ids))
    for tuning, family in ((log, "gemm_f32("), (traced, "gemm_f32_traced(")):
        made = build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=10, tuning=tuning)
        products_of = [name for name in library_index(made.path)["kernels"] if name.startswith("gemm")]
        assert products_of and all(name.startswith(family) for name in products_of)
        assert all(f"tile=3x{machine.lanes}" in name for name in products_of)
        np.testing.assert_allclose(open_artifact(made, threads=1)(of_text(ids)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "wrong"), [(np.zeros((1, 11), np.int64), "11 tokens"), (np.array([[50]]), "50"), (np.array([[-1]]), "-1")]
)
def test_an_input_that_would_read_outside_the_tables_is_refused(artifact, ids, wrong):
    with pytest.raises(UnsupportedError, match=wrong):
        open_artifact(artifact, threads=1)(of_text(ids))


def rewritten(artifact, folder, **about):
    """Return a copy whose index says this of itself, where it is not ``None``."""
    found, constants = read_library(artifact.path)
    names = [tensor["name"] for tensor in found.pop("tensors")]
    copy = replace(artifact, path=folder / "model.so")
    copy.path.write_bytes(artifact.path.read_bytes())
    index = {key: value for key, value in (found | about).items() if value is not None}
    append_constants(copy.path, zip(names, constants, strict=True), index)
    return copy


def test_a_library_that_does_not_say_what_it_reads_reads_text(artifact, tmp_path):
    ids = np.random.default_rng(0).integers(0, 50, (2, 7))
    run, old = (open_artifact(each, threads=1) for each in (artifact, rewritten(artifact, tmp_path, feeds=None)))
    assert old.feeds == run.feeds == tuple(Feed(feed.name, (1, 10), "int64") for feed in TEXT)
    np.testing.assert_array_equal(old(of_text(ids)), run(of_text(ids)))


def test_a_library_that_reads_pixels_refuses_other_images_and_text(artifact, tmp_path):
    feeds = [{"name": "pixel_values", "dimensions": [1, 3, 8, 6], "dtype": "float32"}]
    run = open_artifact(rewritten(artifact, tmp_path, feeds=feeds), threads=1)
    for given in ({"pixel_values": np.zeros((1, 3, 6, 8), np.float32)}, of_text(np.zeros((1, 8), np.int64))):
        with pytest.raises(UnsupportedError, match="pixel_values"):
            run(given)


def test_a_library_is_refused_where_its_instructions_are_missing(artifact, monkeypatch):
    needed = library_index(artifact.path)["instructions"] or pytest.skip("this processor has no more than the least")
    monkeypatch.setattr(engines, "_reported_instructions", lambda: {"fpu", *needed[1:]})
    with pytest.raises(UnsupportedError, match=f"lacks {needed[0]}"):
        open_artifact(artifact, threads=1)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_library_is_refused(artifact, tmp_path, keep):
    broken = tmp_path / "model.so"
    broken.write_bytes(artifact.path.read_bytes()[:keep])
    with pytest.raises(UnsupportedError, match="not a complete TVM library"):
        open_artifact(Artifact(broken, "tvm", 10), threads=1)


def test_more_threads_than_were_started_are_refused(artifact):
    with pytest.raises(UnsupportedError, match="TVM_NUM_THREADS=4096"):
        open_artifact(artifact, threads=4096)


def test_a_fresh_process_runs_a_library_without_torch_and_without_the_compiler(artifact):
    program = (
        "import sys, numpy as np; from pathlib import Path; from autocompress.cost import Artifact;"
        "from autocompress.engines import open_artifact; from autocompress.feeds import TEXT, Feed, of_text;"
        f"run = open_artifact(Artifact(Path({str(artifact.path)!r}), 'tvm', 10), threads=1);"
        "print(run(of_text(np.ones((1, 4), np.int64))).shape, {'torch', 'tvm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 3) set()"
