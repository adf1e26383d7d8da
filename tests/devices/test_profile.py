from typing import Any

import pytest
from pydantic import ValidationError

from autocompress.devices.profile import DeviceProfile


def big_little(**changes: Any) -> dict[str, Any]:
    kind = {"frequency_ghz": 2.0, "f32_flops_per_cycle": 16, "int8_ops_per_cycle": 64}
    return {
        "name": "board",
        "title": "Board",
        "architecture": "aarch64",
        "cpu": "Chip",
        "cores": [
            {"name": "big", "count": 2, **kind},
            {"name": "little", "count": 4, **kind, "frequency_ghz": 1.0, "f32_flops_per_cycle": 8},
        ],
        "isa": ["asimd"],
        "vector_bits": 128,
        "caches": {"l1d_bytes": "32 KiB"},
        "ram_bytes": "4 GiB",
        "tvm_target": {"kind": "llvm", "mcpu": "cortex-a76"},
        "calibration": "none",
        "sources": dict.fromkeys(["cpu", "cores", "isa", "vector_bits", "caches", "ram_bytes"], "data sheet"),
        **changes,
    }


def test_sizes_are_read_in_units_and_kept_in_bytes() -> None:
    profile = DeviceProfile.model_validate(big_little())
    assert profile.ram_bytes == 4 * 2**30
    assert profile.caches.l1d_bytes == 32 * 2**10
    assert profile.caches.l3_bytes is None


def test_the_peak_is_that_of_the_fastest_cores_that_work() -> None:
    profile = DeviceProfile.model_validate(big_little())
    big, little = 2.0 * 16, 1.0 * 8
    assert profile.f32_gflops() == big
    assert profile.f32_gflops(3) == 2 * big + little
    assert profile.f32_gflops(99) == 2 * big + 4 * little
    assert profile.int8_gops(2) == 2 * 2.0 * 64
    assert (profile.frequency_ghz, profile.f32_flops_per_cycle, profile.int8_ops_per_cycle) == (2.0, 16, 64)
    assert profile.core_count == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {}}, "sources lacks cpu, cores, isa, vector_bits, caches, ram_bytes"),
        ({"memory_bandwidth_gb_s": 5.5}, "sources lacks memory_bandwidth_gb_s"),
        ({"power_w": 5.5}, "sources lacks power_w"),
        ({"power_w": 0.0}, "greater than 0"),
        ({"threads": 7}, "There are 6 cores"),
        ({"tvm_target": {"kind": "llvm", "cpu": "x"}}, "mtriple, mcpu, mattr, num-cores"),
        ({"tvm_target": {"kind": "cuda"}}, "kind is llvm"),
        ({"ram_bytes": "4 Gib"}, "one of B, KB"),
        ({"name": "My Board"}, "pattern"),
        ({"wifi": True}, "Extra inputs"),
    ],
)
def test_a_profile_that_does_not_hold_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DeviceProfile.model_validate(big_little(**changes))


def test_a_profile_does_not_change() -> None:
    profile = DeviceProfile.model_validate(big_little())
    with pytest.raises(ValidationError, match="frozen"):
        profile.threads = 2  # type: ignore[misc]
