"""What every profile in ``device_profiles/`` keeps."""

from pathlib import Path

import pytest
import tvm

from autocompress.devices.cores import arm_int8_ops_per_cycle
from autocompress.devices.cpuinfo import ARM_ISA, X86_ISA
from autocompress.devices.load import read_profile
from autocompress.devices.profile import SPECS, DeviceProfile

FOLDER = Path(__file__).parents[2] / "device_profiles"
FILES = sorted(FOLDER.glob("*.yaml"))
BOARDS = [file for file in FILES if file.stem != "host"]


@pytest.fixture(params=BOARDS, ids=lambda file: file.stem)
def profile(request: pytest.FixtureRequest) -> DeviceProfile:
    return read_profile(request.param)


def test_the_promised_devices_are_there() -> None:
    promised = {"host", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "pixel-8", "generic-x86-avx2"}
    assert promised <= {file.stem for file in FILES}


def test_every_spec_says_where_it_comes_from(profile: DeviceProfile) -> None:
    assert set(profile.sources) == {spec for spec in SPECS if getattr(profile, spec) is not None}
    assert all(len(source) > 10 for source in profile.sources.values())


def test_boards_that_were_never_measured_say_so(profile: DeviceProfile) -> None:
    predictors = list((FOLDER.parent / "latency_models").glob(f"{profile.name}-*.json"))
    assert profile.calibration == ("measured" if predictors else "none")


def test_there_is_enough_for_a_roofline(profile: DeviceProfile) -> None:
    assert profile.memory_bandwidth_gb_s is not None
    assert 0 < profile.f32_gflops(1) <= profile.f32_gflops(profile.threads)
    assert profile.f32_gflops(1) < profile.int8_gops(1)


def test_extensions_are_known_and_fit_the_architecture(profile: DeviceProfile) -> None:
    assert set(profile.isa) <= set(ARM_ISA if profile.architecture == "aarch64" else X86_ISA)


def test_arm_int8_peaks_follow_from_the_extensions(profile: DeviceProfile) -> None:
    if profile.architecture == "aarch64":
        for kind in profile.cores:
            assert kind.int8_ops_per_cycle == arm_int8_ops_per_cycle(kind.f32_flops_per_cycle, profile.isa)


def test_cores_are_listed_fastest_first(profile: DeviceProfile) -> None:
    peaks = [kind.frequency_ghz * kind.f32_flops_per_cycle for kind in profile.cores]
    assert peaks == sorted(peaks, reverse=True)


def test_tvm_accepts_the_target(profile: DeviceProfile) -> None:
    target = tvm.target.Target(profile.tvm_target)
    assert str(target.attrs["mtriple"]).startswith(profile.architecture)
