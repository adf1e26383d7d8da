import json
from dataclasses import replace

import pytest

from autocompress.compiler import tuning_log
from autocompress.compiler.dots import fmla, nibble_maddubs, pmaddwd, shifted
from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine, Tile
from autocompress.compiler.program import Kernel
from autocompress.compiler.tuning_log import (
    SIZES,
    Entry,
    KernelClass,
    TuningLog,
    file_name,
    find_log,
    load_log,
    save_log,
    size_class,
    tile_of,
    tvm_version,
)
from autocompress.errors import StorageError
from autocompress.shape import BITS, LayerShape, ModelShape, by_block

MACHINE = Machine(lanes=8, registers=16, dot=pmaddwd(8), nibbles=nibble_maddubs(8), half=shifted(8))
CLASS = KernelClass("gemm_i8", "pmaddwd8", 5, 32, 64)
ENTRY = Entry("4x24", {"6x16": 3.5, "4x24": 3.25}, tvm_version(), "2026-01-02")
LOG = TuningLog("skylake", {CLASS: ENTRY})


def shape(bits):
    return ModelShape("bert", 50, 32, 20, 24, (LayerShape(3, 7, 45, *by_block(bits, bits)),), 3)


def tiles_of(program):
    return {kernel: dict(kernel.size)["tile"] for kernel in program.names() if "tile" in dict(kernel.size)}


@pytest.mark.parametrize("size", [1, 31, *SIZES, 1000, 4097, 9000])
def test_a_class_is_the_least_that_holds_a_size(size):
    found = size_class(size)
    assert found >= size and size_class(found) == found
    assert not any(size <= smaller < found for smaller in SIZES)


@pytest.mark.parametrize("bits", BITS)
def test_every_product_of_a_program_has_a_class_that_the_lowering_asks_for(bits):
    program = lower(shape(bits), tokens=5, machine=MACHINE)
    kernels = tiles_of(program)
    assert kernels
    one_row = {KernelClass.of(kernel): Entry("1x8", {}, tvm_version(), "") for kernel in kernels}
    tuned = lower(shape(bits), tokens=5, machine=MACHINE, tiles=TuningLog("skylake", one_row).tiles(MACHINE))
    assert set(tiles_of(tuned).values()) == {Tile(1, 8, 8)}


def test_other_kernels_have_no_class():
    assert KernelClass.of(Kernel.of("norm", rows=5, width=24, lanes=8)) is None


def test_what_was_not_timed_gets_the_rule():
    rule, logged = (lower(shape(8), tokens=5, machine=MACHINE, tiles=tiles) for tiles in (None, LOG.tiles(MACHINE)))
    before, after = tiles_of(rule), tiles_of(logged)
    changed = {dict(kernel.size)["columns"] for kernel in after.keys() - before.keys()}
    assert changed == {45, 63}  # 24 deep, and 33 to 64 columns: the class 32 x 64.
    assert set(after.values()) - set(before.values()) == {Tile(4, 24, 8)}


def test_a_tile_is_no_wider_than_the_product():
    log = TuningLog("skylake", {CLASS: replace(ENTRY, tile="2x64")})
    assert log.tiles(MACHINE)("gemm_i8", 5, 20, 45) == Tile(2, 48, 8)


@pytest.mark.parametrize("other", [{"tvm": "0.0"}, {"kernels": "0"}, {"tile": "4x12"}])
def test_another_version_of_tvm_or_of_the_kernels_or_width_of_vectors_says_nothing(other):
    log = TuningLog("skylake", {CLASS: replace(ENTRY, **other)})
    assert log.tiles(MACHINE)("gemm_i8", 5, 32, 64) == MACHINE.tile(5, 64)


def test_the_digest_tells_choices_apart_and_nothing_else():
    assert TuningLog("skylake").digest == TuningLog("skylake", {CLASS: replace(ENTRY, tvm="0.0")}).digest == "rule"
    assert LOG.digest == TuningLog("skylake", {CLASS: replace(ENTRY, date="2027-01-01", microseconds={})}).digest
    assert LOG.digest != TuningLog("skylake", {CLASS: replace(ENTRY, tile="6x16")}).digest


def test_a_log_comes_back_as_it_was_saved_and_leaves_nothing_else(tmp_path):
    log = LOG.learnt(replace(CLASS, rows=1), replace(ENTRY, source="metaschedule", traces={"gemm_f32(...)": "[]"}))
    path = save_log(log, tmp_path / "tuning")
    assert load_log(path) == log
    assert list((tmp_path / "tuning").iterdir()) == [path]


def test_the_first_folder_that_has_the_target_decides(tmp_path):
    folders = [tmp_path / "user", tmp_path / "shipped"]
    assert find_log("skylake", folders) == TuningLog("skylake")
    save_log(LOG, folders[1])
    assert find_log("skylake", folders) == LOG
    save_log(TuningLog("skylake"), folders[0])
    assert find_log("skylake", folders) == TuningLog("skylake")
    assert find_log("skylake +avx", folders) == TuningLog("skylake +avx")


def test_a_log_under_the_name_of_another_target_is_refused(tmp_path):
    path = save_log(LOG, tmp_path)
    path.rename(tmp_path / file_name("znver4"))
    with pytest.raises(StorageError, match="of the target 'skylake'"):
        find_log("znver4", [tmp_path])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda data: "{", "cannot be read"),
        (lambda data: "[]", "format version None"),
        (lambda data: json.dumps(data | {"format_version": 99}), "format version 99"),
        (lambda data: json.dumps({"format_version": 1}), "damaged: KeyError"),
        (lambda data: json.dumps(data | {"entries": [{}]}), "damaged: TypeError"),
        (lambda data: json.dumps(data | {"entries": [data["entries"][0] | {"tile": "0x8"}]}), "is empty"),
        (lambda data: json.dumps(data | {"entries": [data["entries"][0] | {"tile": "wide"}]}), "damaged: ValueError"),
    ],
)
def test_a_broken_log_says_what_to_do(tmp_path, change, wrong):
    path = save_log(LOG, tmp_path)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(StorageError, match=wrong) as raised:
        load_log(path)
    assert "--tune tiles" in raised.value.next_step


def test_the_version_is_that_of_the_installed_tvm():
    import tvm

    assert tvm_version().startswith(tvm.__version__.split(".post")[0])
    assert tuning_log.FOLDER == "tuning"


@pytest.mark.parametrize("tile", [Tile(8, 32, 16), Tile(13, 16, 16, ahead=True)])
def test_a_tile_is_read_from_its_name(tile):
    assert tile_of(str(tile), 16) == tile


def test_a_product_whose_sums_are_narrower_has_vectors_of_more_lanes():
    machine = Machine(lanes=4, registers=32, dot=pmaddwd(4), nibbles=nibble_maddubs(4), half=fmla())
    log = TuningLog("a", {KernelClass("gemm_f16", f"fmla{fmla().lanes}", 5, 32, 64): replace(ENTRY, tile="3x16")})
    assert log.tiles(machine)("gemm_f16", 5, 20, 45) == Tile(3, 16, fmla().lanes)
