import re
from dataclasses import replace

import pytest

from autocompress.compiler import relax_graph
from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.graph import random_weights, weight_specs
from autocompress.compiler.tuning_log import Entry, KernelClass, TuningLog, save_log, tvm_version
from autocompress.engines import library_index, stored_bits
from autocompress.errors import MissingDependencyError, UnsupportedError
from autocompress.shape import BITS, LayerShape, ModelShape, by_block, nearest_embedding_bits

SHAPE = ModelShape("bert", 50, 32, 24, 24, (LayerShape(2, 12, 40),), classes=3)
WEIGHTS = random_weights(SHAPE)


@pytest.fixture
def no_compilation(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("compiled before the input was checked")

    monkeypatch.setattr(relax_graph, "relax_module", refuse)
    monkeypatch.setattr(relax_graph, "compile_module", refuse)


def with_layer(**change):
    return replace(SHAPE, layers=(replace(SHAPE.layers[0], **change),))


@pytest.mark.parametrize("engine", BUILDERS)
@pytest.mark.parametrize(
    ("shape", "tokens", "wrong"),
    [
        (with_layer(heads=0), 8, "heads = 0"),
        (with_layer(head_width=0), 8, "head_width = 0"),
        (with_layer(ffn=0), 8, "ffn = 0"),
        (with_layer(ffn_in_bits=5), 8, "weights of 5 bits"),
        (with_layer(most_tokens=-1), 8, "Layer 0 passes on -1 tokens"),
        (with_layer(attention_in_bits=64), 8, "weights of 64 bits"),
        (with_layer(ffn_in_bits=4, weight_group=16), 8, "Weights of layer 0 are in groups of 16 input channels"),
        (replace(SHAPE, embedding_bits=2), 8, "token embedding is asked for weights of 2 bits"),
        (replace(SHAPE, embedding_bits=3), 8, "weights of 3 bits"),
        (SHAPE, 33, "33 tokens"),
        (SHAPE, 0, "0 tokens"),
        (replace(SHAPE, classes=4), 8, "head.classifier.weight is of dimensions"),
        (with_layer(ffn_in_bits=8), 8, "layers.0.ffn_in.scale is missing"),
    ],
)
@pytest.mark.usefixtures("no_compilation")
def test_what_no_kernel_can_compute_is_refused_before_compilation(engine, shape, tokens, wrong, tmp_path):
    with pytest.raises(UnsupportedError, match=wrong):
        build(shape, WEIGHTS, tmp_path / "model", engine=engine, tokens=tokens)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [0, 65])
@pytest.mark.usefixtures("no_compilation")
def test_a_number_of_sequences_that_no_library_runs_is_refused(batch, tmp_path):
    with pytest.raises(UnsupportedError, match=f"{batch} sequences"):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8, batch=batch)


@pytest.mark.usefixtures("no_compilation")
def test_an_unknown_engine_is_refused_before_compilation(tmp_path):
    with pytest.raises(UnsupportedError, match="'openvino'"):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="openvino", tokens=8)


@pytest.mark.usefixtures("no_compilation")
def test_an_unknown_processor_is_refused_before_compilation(tmp_path):
    with pytest.raises(UnsupportedError, match="'pentium-9000'"):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8, target={"mcpu": "pentium-9000"})


@pytest.mark.usefixtures("no_compilation")
def test_a_missing_linker_is_named_before_compilation(tmp_path):
    target = {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu", "linker": "no-such-linker"}
    with pytest.raises(MissingDependencyError, match="no-such-linker"):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8, target=target)


def test_a_failed_build_leaves_the_earlier_library(tmp_path, monkeypatch):
    (tmp_path / "model.so").write_text("earlier")
    monkeypatch.setattr("tvm.support.cc.cross_compiler", lambda _: lambda *_a, **_k: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8)
    assert [path.name for path in tmp_path.iterdir()] == ["model.so"]
    assert (tmp_path / "model.so").read_text() == "earlier"


def larger(bits):
    layer = LayerShape(4, 32, 500, *by_block(bits, bits))
    table = nearest_embedding_bits(bits)
    return ModelShape("bert", 5000, 64, 160, 160, (layer,) * 2, classes=3, embedding_bits=table)


def sizes(engine, folder):
    return {
        bits: build(larger(bits), random_weights(larger(bits)), folder / f"{bits}", engine=engine, tokens=8).size_bytes
        for bits in BITS
    }


def stored(bits):
    """Bytes of all tensors as packed."""
    return sum(spec.size_bytes for spec in weight_specs(larger(bits)).values())


@pytest.mark.parametrize("engine", BUILDERS)
def test_fewer_bits_make_a_smaller_file(engine, tmp_path):
    size = sizes(engine, tmp_path)
    assert size[2] < size[3] <= size[4] < size[8] < size[16] < size[32]
    assert (size[3] == size[4]) == (stored_bits(engine, 3) == 4)
    # What the file holds beside the weights (code, names, padding of 500 neurons to panels) changes little with bits.
    for bits in (2, 3, 4, 8, 16):
        expected = stored(32) - stored(stored_bits(engine, bits))
        assert size[32] - size[bits] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("bits", BITS)
def test_weight_specs_foretell_the_onnx_file_within_two_percent(bits, tmp_path):
    artifact = build(larger(bits), random_weights(larger(bits)), tmp_path / "model", engine="onnxruntime", tokens=8)
    assert artifact.size_bytes == pytest.approx(stored(stored_bits("onnxruntime", bits)), rel=0.02)


@pytest.mark.parametrize(
    ("cpu", "triple", "linker"),
    [
        ("sifive-u74", "riscv64-linux-gnu", "riscv64-linux-gnu-g++"),
        ("cortex-a7", "armv7l-linux-gnueabihf", "arm-linux-gnueabihf-g++"),
        ("cortex-a72", "arm64-linux-gnu", "aarch64-linux-gnu-g++"),
    ],
)
def test_another_processor_is_linked_for_by_its_own_compiler(cpu, triple, linker, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: None)
    target = {"mcpu": cpu, "mtriple": triple}
    with pytest.raises(MissingDependencyError, match=re.escape(f"The linker {linker} is not installed")):
        build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8, target=target)


def test_the_log_of_the_target_decides_the_tiles_and_one_of_another_target_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path / "home"))
    target, name = {"mcpu": "haswell", "mtriple": "x86_64-linux-gnu"}, "x86_64-linux-gnu haswell"

    def tiles(**options):
        made = build(SHAPE, WEIGHTS, tmp_path / "model", engine="tvm", tokens=8, target=target, **options)
        return library_index(made.path)["tiles"]["gemm_f32 8 x 40 x 24"]

    entry = Entry("4x24", {}, tvm_version(), "2026-01-02")
    log = TuningLog(name, {KernelClass("gemm_f32", "lanes8", 8, 32, 64): entry})
    rule = tiles()
    assert rule != "4x24" == tiles(tuning=log)
    save_log(log, tmp_path / "home/tuning")
    assert (tiles(), tiles(tuning=TuningLog(name))) == ("4x24", rule)
    with pytest.raises(UnsupportedError, match="A tuning log of znver4"):
        tiles(tuning=TuningLog("znver4"))
