from pathlib import Path

import pytest

from autocompress.devices.cpuinfo import (
    board_name,
    parse_cache_size,
    parse_cpu_quota,
    parse_cpuinfo,
    parse_memory_limit,
)

RECORDED = Path(__file__).with_name("recorded")
PI_4 = (RECORDED / "raspberry_pi_4_cpuinfo.txt").read_text()
EPYC = (RECORDED / "epyc_cpuinfo.txt").read_text()


def test_a_raspberry_pi_4_is_four_cortex_a72_with_plain_neon() -> None:
    processors = parse_cpuinfo(PI_4)
    assert [cpu.index for cpu in processors] == [0, 1, 2, 3]
    assert {cpu.part for cpu in processors} == {(0x41, 0xD08)}
    assert {cpu.isa for cpu in processors} == {("asimd",)}
    assert {cpu.mhz for cpu in processors} == {0.0}
    assert board_name(PI_4) == "Raspberry Pi 4 Model B Rev 1.1"


def test_an_epyc_has_avx512_with_vnni() -> None:
    processors = parse_cpuinfo(EPYC)
    assert {(cpu.vendor, cpu.family, cpu.threads_per_core) for cpu in processors} == {("AuthenticAMD", 25, 1)}
    assert {"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16"} <= set(processors[0].isa)
    assert "avx_vnni" not in processors[0].isa
    assert processors[0].mhz > 0
    assert board_name(EPYC) == ""


def test_a_flag_is_a_whole_word() -> None:
    (cpu,) = parse_cpuinfo("processor: 0\nFeatures: fp asimd svei8mm svebf16\n")
    assert cpu.isa == ("asimd",)


def test_threads_that_share_a_core_are_counted() -> None:
    (cpu,) = parse_cpuinfo("processor: 0\nflags: avx2\nsiblings: 16\ncpu cores: 8\n")
    assert cpu.threads_per_core == 2


def test_text_without_processors_has_none() -> None:
    assert parse_cpuinfo("") == ()


@pytest.mark.parametrize(("text", "size"), [("32K", 32 * 1024), ("32768K\n", 2**25), ("2M", 2**21), ("", 0), ("?", 0)])
def test_a_cache_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_cache_size(text) == size


@pytest.mark.parametrize(
    ("text", "quota"),
    [("150000 100000", 1.5), ("max 100000", None), ("-1 100000", None), ("", None), ("100000 0", None)],
)
def test_a_cpu_quota_is_read_in_cores(text: str, quota: float | None) -> None:
    assert parse_cpu_quota(text) == quota


@pytest.mark.parametrize(
    ("text", "limit"), [("1073741824", 2**30), ("max", None), ("9223372036854771712", None), ("", None)]
)
def test_a_memory_limit_is_read_in_bytes(text: str, limit: int | None) -> None:
    assert parse_memory_limit(text) == limit
