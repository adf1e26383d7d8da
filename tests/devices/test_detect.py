import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from autocompress.devices.detect import ASSUMED_GHZ, detect_host, profile_of, write_profile
from autocompress.devices.load import load_profile, read_profile
from autocompress.devices.profile import DeviceProfile
from autocompress.devices.system import HostText, copy_bandwidth_gb_s
from autocompress.errors import DeviceError

RECORDED = Path(__file__).with_name("recorded")
PI_4 = HostText(
    machine="aarch64",
    cpuinfo=(RECORDED / "raspberry_pi_4_cpuinfo.txt").read_text(),
    usable=frozenset(range(4)),
    ram_bytes=3_977_000_000,
    max_khz=dict.fromkeys(range(4), 1_800_000),
    caches=(("1", "Data", "32K"), ("1", "Instruction", "48K"), ("2", "Unified", "1024K")),
)
EPYC = HostText(
    machine="x86_64",
    cpuinfo=(RECORDED / "epyc_cpuinfo.txt").read_text(),
    usable=frozenset({0, 1}),
    ram_bytes=24 * 2**30,
    caches=(("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")),
    engines={"onnxruntime": "1.23.0"},
)


def test_a_raspberry_pi_4_is_detected_as_its_profile_says() -> None:
    detected, written = profile_of(PI_4), load_profile("raspberry-pi-4")
    for field in ("architecture", "cores", "isa", "vector_bits", "caches", "threads"):
        assert getattr(detected, field) == getattr(written, field), field
    assert detected.tvm_target["mcpu"] == written.tvm_target["mcpu"]
    assert detected.title == "Raspberry Pi 4 Model B Rev 1.1"
    assert detected.ram_bytes == PI_4.ram_bytes


def test_an_epyc_is_detected_with_its_vector_units() -> None:
    profile = profile_of(EPYC, bandwidth_gb_s=20.0)
    (kind,) = profile.cores
    assert (kind.count, kind.f32_flops_per_cycle, kind.int8_ops_per_cycle) == (2, 32, 128)
    assert profile.vector_bits == 512
    assert profile.tvm_target == {"kind": "llvm", "mcpu": "znver4", "num-cores": 2}
    assert profile.caches.l3_bytes == 32 * 2**20
    assert profile.engines == {"onnxruntime": "1.23.0"}
    assert profile.memory_bandwidth_gb_s == 20.0


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"usable": frozenset({1, 3})}, 2),
        ({"cpu_quota": "150000 100000"}, 2),
        ({"cpu_quota": "50000 100000"}, 1),
        ({"cpu_quota": "max 100000"}, 4),
        ({"cpu_quota": "900000 100000"}, 4),
    ],
)
def test_affinity_and_quota_limit_the_cores(change: dict[str, object], count: int) -> None:
    profile = profile_of(replace(PI_4, **change))
    assert profile.core_count == count
    assert profile.threads == count
    assert profile.tvm_target["num-cores"] == count


def test_threads_of_one_core_are_not_two_cores() -> None:
    shared = EPYC.cpuinfo.replace("cpu cores\t: 2", "cpu cores\t: 1")
    assert shared != EPYC.cpuinfo
    assert profile_of(replace(EPYC, cpuinfo=shared)).core_count == 1


def test_kinds_of_cores_are_listed_fastest_first() -> None:
    text = PI_4.cpuinfo.replace("0xd08", "0xd0b", 1)
    profile = profile_of(replace(PI_4, cpuinfo=text))
    assert [(kind.name, kind.count) for kind in profile.cores] == [("Cortex-A76", 1), ("Cortex-A72", 3)]
    assert profile.tvm_target["mcpu"] == "cortex-a76"


def test_a_container_limit_is_the_memory_there_is() -> None:
    assert profile_of(replace(PI_4, memory_limit=str(2**30))).ram_bytes == 2**30
    assert profile_of(replace(PI_4, memory_limit="max")).ram_bytes == PI_4.ram_bytes


def test_a_clock_that_nobody_says_is_assumed_and_said_to_be() -> None:
    profile = profile_of(replace(PI_4, max_khz={}))
    assert profile.frequency_ghz == ASSUMED_GHZ
    assert f"{ASSUMED_GHZ} GHz" in profile.sources["cores"]
    assert f"{ASSUMED_GHZ} GHz" not in profile_of(PI_4).sources["cores"]


def test_an_unknown_arm_core_gets_the_least_of_its_architecture() -> None:
    profile = profile_of(replace(PI_4, cpuinfo=PI_4.cpuinfo.replace("0xd08", "0xfff")))
    assert profile.f32_flops_per_cycle == 2 * 128 / 32
    assert profile.tvm_target["mcpu"] == "generic"


@pytest.mark.parametrize("change", [{"machine": "riscv64"}, {"cpuinfo": ""}, {"machine": ""}])
def test_a_machine_that_cannot_be_read_is_an_error_with_a_next_step(change: dict[str, str]) -> None:
    with pytest.raises(DeviceError) as caught:
        profile_of(replace(PI_4, **change))
    assert "by hand" in caught.value.next_step


def test_this_machine_is_within_what_the_process_may_use() -> None:
    profile = detect_host(measure_bandwidth=False)
    assert 1 <= profile.core_count <= len(os.sched_getaffinity(0))
    assert profile.ram_bytes >= 2**20
    assert profile.engines["onnxruntime"] == onnxruntime.__version__
    assert profile.memory_bandwidth_gb_s is None


def test_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.arange(10) * 0.5)
    monkeypatch.setattr("autocompress.devices.system.time.perf_counter", lambda: next(ticks))
    assert copy_bandwidth_gb_s(size_bytes=10**9 // 8, repeats=2) == round(2 * 0.125 / 0.5, 1)


@pytest.mark.parametrize("host", [PI_4, EPYC])
def test_a_written_profile_reads_as_the_same(host: HostText, tmp_path: Path) -> None:
    profile = profile_of(host, bandwidth_gb_s=5.5)
    assert read_profile(write_profile(profile, tmp_path / "new")) == profile
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["host.yaml"]


def test_writing_replaces_what_was_there(tmp_path: Path) -> None:
    write_profile(profile_of(PI_4), tmp_path)
    newer: DeviceProfile = profile_of(PI_4).model_copy(update={"title": "Newer"})
    assert read_profile(write_profile(newer, tmp_path)).title == "Newer"
