import re

import pytest
from tvm.target import codegen

from autocompress.compiler.dots import half_of
from autocompress.compiler.machine import Tile
from autocompress.compiler.schedules.gemm_f16 import gemm_f16, narrow
from autocompress.compiler.target import Target
from tests.compiler.running import compiled

X86, ARM, ARM32, RISCV = (f"{name}-linux-gnu" for name in ("x86_64", "aarch64", "arm", "riscv64"))


def chosen(llvm, lanes):
    architecture = str(llvm.attrs["mtriple"]).split("-")[0]
    return half_of(lambda feature: bool(codegen.target_has_features(feature, llvm)), architecture, lanes)


@pytest.mark.parametrize(
    ("cpu", "triple", "features", "lanes", "name"),
    [
        ("znver4", X86, (), 16, "dpbf16ps"),
        ("skylake-avx512", X86, (), 16, "shifted_pairs"),
        ("haswell", X86, (), 8, "shifted"),
        ("x86-64", X86, (), 4, "shifted"),
        ("cortex-a72", ARM, (), 4, "shifted_pairs"),
        ("cortex-a72", ARM, ("+bf16",), 4, "bfdot"),
        ("cortex-a72", ARM, ("+fullfp16",), 4, "fmla"),
        ("cortex-a76", ARM, (), 4, "fmla"),
        ("neoverse-v1", ARM, (), 4, "bfdot"),
        ("cortex-a7", ARM32, (), 4, "shifted"),
        ("generic-rv64", RISCV, ("+m", "+a", "+f", "+d", "+c"), 4, "shifted"),
    ],
)
def test_a_target_gets_the_best_product_it_has_instructions_for(cpu, triple, features, lanes, name):
    assert chosen(Target(cpu, triple, features).llvm(), lanes).name == name


@pytest.mark.parametrize(
    ("cpu", "triple", "features", "lanes", "product", "narrowing"),
    [
        ("znver4", X86, (), 16, r"vdpbf16ps\t.*zmm", "vcvtneps2bf16"),
        ("skylake-avx512", X86, (), 16, r"vpslld\t\$16, %zmm", None),
        ("haswell", X86, (), 8, r"vpmovzxwd\t.*ymm", None),
        ("x86-64", X86, (), 4, r"punpcklwd\t.*xmm", None),
        ("cortex-a72", ARM, (), 4, r"fmla\tv\d+\.4s", None),
        ("cortex-a72", ARM, ("+bf16",), 4, r"bfdot\tv\d+\.4s", "bfcvtn"),
        ("cortex-a72", ARM, ("+fullfp16",), 4, r"fmla\tv\d+\.8h", "fcvtn"),
        ("cortex-a7", ARM32, (), 4, r"vshll\.i16|vmovl\.u16", None),
        ("generic-rv64", RISCV, ("+m", "+a", "+f", "+d", "+c"), 4, "slliw?", None),
    ],
)
def test_products_and_conversions_compile_to_the_named_instructions(cpu, triple, features, lanes, product, narrowing):
    llvm = Target(cpu, triple, features).llvm()
    dot = chosen(llvm, lanes)
    tile = Tile(rows=2, panel=2 * dot.lanes, lanes=dot.lanes)
    written = gemm_f16("kernel", rows=2, depth=37, columns=9, activation=None, tile=tile, dot=dot)
    text = compiled(written, llvm).mod.inspect_source("asm")
    assert re.search(rf"\t({product})", text)
    # Calls of functions written in LLVM's language would cost more than the instruction.
    assert "bf16_" not in text
    if narrowing:
        text = compiled(narrow("kernel", rows=2, width=37, dot=dot), llvm).mod.inspect_source("asm")
        assert re.search(rf"\t{narrowing}", text)
        assert "bf16_" not in text
