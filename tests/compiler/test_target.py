import pytest

from autocompress.compiler.dots import nibble_maddubs, pmaddwd, shifted
from autocompress.compiler.machine import Machine, Tile
from autocompress.compiler.schedules.gemm_f32 import gemm_f32
from autocompress.compiler.schedules.gemm_grouped import gemm_grouped
from autocompress.compiler.schedules.gemm_i8 import gemm_i8
from autocompress.compiler.target import Target, machine_of
from autocompress.errors import UnsupportedError
from tests.compiler.running import compiled

ARM = "aarch64-linux-gnu"


def test_the_host_is_a_processor_that_llvm_knows():
    assert Target.host().llvm().attrs["mcpu"] == Target.host().cpu


@pytest.mark.parametrize(
    ("cpu", "triple", "features", "lanes", "dot", "nibbles"),
    [
        ("znver4", "x86_64-linux-gnu", (), 16, "vnni", "vnni"),
        ("skylake-avx512", "x86_64-linux-gnu", (), 16, "pmaddwd", "maddubs"),
        ("alderlake", "x86_64-linux-gnu", (), 8, "vnni", "vnni"),
        ("haswell", "x86_64-linux-gnu", (), 8, "pmaddwd", "maddubs"),
        ("x86-64", "x86_64-linux-gnu", (), 4, "pmaddwd", "pmaddwd"),
        ("cortex-a72", ARM, (), 4, "smlal", "smlal"),
        ("cortex-a72", ARM, ("+dotprod",), 4, "sdot", "sdot"),
        ("cortex-a76", ARM, (), 4, "sdot", "sdot"),
        ("neoverse-v1", ARM, (), 4, "usdot", "sdot"),
    ],
)
def test_kernels_use_the_best_instructions_a_processor_has(cpu, triple, features, lanes, dot, nibbles):
    machine = machine_of(Target(cpu, triple, features).llvm())
    assert (machine.lanes, machine.dot.name, machine.nibbles.name) == (lanes, dot, nibbles)
    assert (machine.dot.lanes, machine.nibbles.lanes) == (lanes, lanes)


@pytest.mark.parametrize(
    ("cpu", "triple", "instruction"),
    [
        ("znver4", "x86_64-linux-gnu", "vpdpbusd"),
        ("alderlake", "x86_64-linux-gnu", "vpdpbusd"),
        ("haswell", "x86_64-linux-gnu", "vpmaddwd"),
        ("cortex-a76", ARM, "sdot"),
        ("neoverse-v1", ARM, "usdot"),
        ("cortex-a72", ARM, "smlal"),
    ],
)
def test_the_integer_product_compiles_to_the_named_instruction(cpu, triple, instruction):
    llvm = Target(cpu, triple).llvm()
    dot = machine_of(llvm).dot
    tile = Tile(rows=2, panel=2 * dot.lanes, lanes=dot.lanes)
    kernel = gemm_i8("kernel", rows=2, depth=16, columns=9, activation=None, tile=tile, dot=dot)
    assert f"\t{instruction}" in compiled(kernel, llvm).mod.inspect_source("asm")


@pytest.mark.parametrize(
    ("cpu", "triple", "instruction"),
    [
        ("znver4", "x86_64-linux-gnu", "vpdpbusd"),
        ("alderlake", "x86_64-linux-gnu", "vpdpbusd"),
        ("haswell", "x86_64-linux-gnu", "vpmaddubsw"),
        ("skylake-avx512", "x86_64-linux-gnu", "vpmaddubsw"),
        ("x86-64", "x86_64-linux-gnu", "pmaddwd"),
        ("cortex-a76", ARM, "sdot"),
        ("cortex-a72", ARM, "smlal"),
    ],
)
def test_the_product_of_nibbles_compiles_to_the_named_instruction(cpu, triple, instruction):
    llvm = Target(cpu, triple).llvm()
    machine = machine_of(llvm)
    tile = machine.nibble_tile(rows=2, columns=9)
    size = {"rows": 2, "depth": 40, "columns": 9}
    kernel = gemm_grouped("kernel", **size, bits=4, activation=None, tile=tile, dot=machine.nibbles)
    assert f"\t{instruction}" in compiled(kernel, llvm).mod.inspect_source("asm")


@pytest.mark.parametrize(("rows", "columns", "vectors"), [(64, 384, 1), (4, 384, 2), (1, 384, 8), (1, 40, 3)])
def test_few_rows_leave_registers_for_more_columns(rows, columns, vectors):
    machine = machine_of(Target("znver4", "x86_64-linux-gnu").llvm())
    assert machine.nibble_tile(rows, columns) == Tile(8, 16 * vectors, 16, ahead=rows > 8)


@pytest.mark.parametrize("registers", [16, 32])
def test_a_tile_keeps_enough_sums_apart_and_fits_in_the_registers(registers):
    machine = Machine(lanes=8, registers=registers, dot=pmaddwd(8), nibbles=nibble_maddubs(8), half=shifted(8))
    most = machine.tile(64, 512).rows
    for rows in range(1, 65):
        tile = machine.tile(rows, 512)
        vectors = tile.panel // tile.lanes
        # Beside the sums: one vector of weights and one activation.
        assert min(rows, most) * vectors + 2 <= registers
        assert vectors == (4 if rows <= most // 2 else 2)


def test_a_panel_is_no_wider_than_the_columns_need():
    machine = Machine(lanes=8, registers=16, dot=pmaddwd(8), nibbles=nibble_maddubs(8), half=shifted(8))
    assert [machine.tile(1, columns).panel for columns in (1, 8, 9, 24, 25, 512)] == [8, 8, 16, 16, 32, 32]


def test_a_description_reads_as_a_target():
    description = {"kind": "llvm", "mcpu": "cortex-a76", "mtriple": ARM, "mattr": ["+dotprod"], "num-cores": 4}
    linker = {"linker": "aarch64-linux-gnu-g++"}
    assert Target.read(description | linker) == Target("cortex-a76", ARM, ("+dotprod",), "aarch64-linux-gnu-g++")


@pytest.mark.parametrize("description", [{"mcpu": "znver4", "mcqu": "x"}, {"kind": "cuda", "mcpu": "x"}, {"mcpu": ""}])
def test_a_description_with_other_keys_is_refused(description):
    with pytest.raises(UnsupportedError, match="cannot be compiled for"):
        Target.read(description)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        (Target("pentium-9000"), "does not know the processor 'pentium-9000'"),
        (Target("znver4", ARM), "does not know the processor 'znver4'"),
        (Target("znver4", "toaster-linux-gnu"), "'toaster-linux-gnu'"),
    ],
)
def test_an_unknown_processor_or_platform_is_refused(target, wrong):
    with pytest.raises(UnsupportedError, match=wrong):
        target.llvm()


@pytest.mark.parametrize("triple", ["armv7a-linux-gnueabihf", "armv7l-unknown-linux-gnueabihf"])
def test_floats_are_passed_in_registers_on_hard_float_arm_however_the_platform_is_written(triple):
    llvm = Target("cortex-a7", triple).llvm()
    kernel = gemm_f32("kernel", rows=2, depth=3, columns=4, activation="gelu", tile=Tile(rows=2, panel=4, lanes=4))
    # Attribute 28 of the object: how the caller passes floats; 1 stands for the registers of the floating-point unit.
    assert "\t.eabi_attribute\t28, 1" in compiled(kernel, llvm).mod.inspect_source("asm")


def test_a_riscv_core_without_floating_point_registers_is_refused():
    with pytest.raises(UnsupportedError, match=r"mattr = .*\+d"):
        Target("generic-rv64", "riscv64-unknown-linux-gnu").llvm()
    assert Target("generic-rv64", "riscv64-unknown-linux-gnu", ("+m", "+f", "+d")).llvm()
    assert Target("sifive-u74", "riscv64-linux-gnu").llvm()
