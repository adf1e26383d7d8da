import pytest

from autocompress.devices.cores import (
    ARM_CORES,
    arm_int8_ops_per_cycle,
    x86_f32_flops_per_cycle,
    x86_int8_ops_per_cycle,
    x86_llvm,
    x86_vector_bits,
)

AVX2 = {"sse4_2", "avx", "avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
VNNI = AVX512 | {"avx512_vnni"}
ZEN_4 = VNNI | {"avx512_bf16", "avx512_vbmi2"}


def two_fused_multiply_adds(vector_bits: int) -> float:
    return 2 * 2 * vector_bits / 32


@pytest.mark.parametrize(
    ("vendor", "family", "isa", "unit_bits"),
    [
        ("GenuineIntel", 6, AVX2, 256),
        ("GenuineIntel", 6, AVX512, 512),
        ("AuthenticAMD", 25, ZEN_4, 256),
        ("AuthenticAMD", 26, ZEN_4, 512),
    ],
)
def test_x86_f32_is_two_fused_multiply_adds_of_the_units_width(
    vendor: str, family: int, isa: set[str], unit_bits: int
) -> None:
    assert x86_f32_flops_per_cycle(vendor, family, isa) == two_fused_multiply_adds(unit_bits)


def test_x86_without_fused_multiply_add_adds_and_multiplies_apart() -> None:
    assert x86_f32_flops_per_cycle("GenuineIntel", 6, {"sse4_2", "avx"}) == 2 * 256 / 32
    assert x86_f32_flops_per_cycle("GenuineIntel", 6, {"sse4_2"}) == 2 * 128 / 32


def test_vnni_makes_four_int8_multiply_adds_in_a_f32_lane() -> None:
    for vendor, family, isa in [("GenuineIntel", 6, VNNI), ("AuthenticAMD", 25, ZEN_4)]:
        f32 = x86_f32_flops_per_cycle(vendor, family, isa)
        assert x86_int8_ops_per_cycle(vendor, family, isa) == 4 * f32
    assert x86_int8_ops_per_cycle("GenuineIntel", 6, AVX2) == 2 * x86_f32_flops_per_cycle("GenuineIntel", 6, AVX2)


def test_arm_int8_follows_the_widest_instruction() -> None:
    multiply_adds = {"fmla": 4, "smull": 8, "sdot": 16, "smmla": 32}
    pipes = 2
    f32 = pipes * 2 * multiply_adds["fmla"]
    assert arm_int8_ops_per_cycle(f32, ["asimd"]) == pipes * 2 * multiply_adds["smull"]
    assert arm_int8_ops_per_cycle(f32, ["asimd", "asimddp"]) == pipes * 2 * multiply_adds["sdot"]
    assert arm_int8_ops_per_cycle(f32, ["asimd", "asimddp", "i8mm"]) == pipes * 2 * multiply_adds["smmla"]


def test_hidden_extensions_lower_the_llvm_processor() -> None:
    assert x86_llvm("AuthenticAMD", 25, ZEN_4) == "znver4"
    assert x86_llvm("AuthenticAMD", 26, ZEN_4 | {"avx_vnni"}) == "znver5"
    assert x86_llvm("AuthenticAMD", 25, AVX2) == "x86-64-v3"
    assert x86_llvm("GenuineIntel", 6, ZEN_4 | {"amx_tile", "amx_int8", "avx_vnni"}) == "sapphirerapids"
    assert x86_llvm("GenuineIntel", 6, VNNI) == "cascadelake"
    assert x86_llvm("GenuineIntel", 6, AVX512) == "skylake-avx512"
    assert x86_llvm("GenuineIntel", 6, AVX2 | {"avx_vnni"}) == "alderlake"
    assert x86_llvm("GenuineIntel", 6, set()) == "x86-64"


@pytest.mark.parametrize(("isa", "bits"), [(AVX512, 512), (AVX2, 256), ({"sse4_2"}, 128)])
def test_the_widest_register_counts(isa: set[str], bits: int) -> None:
    assert x86_vector_bits(isa) == bits


def test_every_arm_core_runs_whole_vectors() -> None:
    for core in ARM_CORES.values():
        assert core.f32_flops_per_cycle % (2 * 128 / 32) == 0
