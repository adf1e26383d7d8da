from __future__ import annotations

import subprocess
import sys

import pytest

from autocompress.profiling.conditions import ProcessorState, processor_c, read_state, read_temperatures
from tests.profiling.trees import plant

CPU = "devices/system/cpu/cpu2/cpufreq"
FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def sysfs(tmp_path):
    return tmp_path / "sys"


@pytest.fixture
def procfs(tmp_path):
    """Tells that the thread ran on core 2; its name has a bracket and a space, as names may."""
    rest = " ".join(["S", *map(str, range(4, 39)), "2", "40"])
    return plant(tmp_path / "proc", {"thread-self/stat": f"77 (a) thread) {rest}"})


def cpuinfo(flags: str) -> str:
    return "\n\n".join(f"processor\t: {n}\ncpu MHz\t\t: {1000 + n}.500\nflags\t\t: fpu {flags}" for n in range(4))


def test_the_clock_is_that_of_the_core_that_ran(sysfs, procfs):
    files = {f"devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq": 600_000 * (n + 1) for n in range(4)}
    plant(sysfs, {**files, f"{CPU}/scaling_governor": "ondemand"})
    assert read_state(sysfs=sysfs, procfs=procfs) == ProcessorState(frequency_ghz=1.8, governor="ondemand")


def test_what_the_hardware_says_counts_before_what_was_asked_of_it(sysfs, procfs):
    plant(sysfs, {f"{CPU}/scaling_cur_freq": 1_800_000, f"{CPU}/cpuinfo_cur_freq": 1_000_000})
    assert read_state(sysfs=sysfs, procfs=procfs).frequency_ghz == 1.0
    (sysfs / CPU / "cpuinfo_cur_freq").write_text("<unknown>\n")
    assert read_state(sysfs=sysfs, procfs=procfs).frequency_ghz == 1.8


def test_without_cpufreq_the_clock_is_the_one_that_the_kernel_counts(sysfs, procfs):
    plant(procfs, {"cpuinfo": cpuinfo("aperfmperf")})
    assert read_state(sysfs=sysfs, procfs=procfs).frequency_ghz == 1.0025


def test_a_nominal_clock_is_none(sysfs, procfs):
    plant(procfs, {"cpuinfo": cpuinfo("hypervisor")})
    assert read_state(sysfs=sysfs, procfs=procfs).frequency_ghz is None


def test_with_cpufreq_the_nominal_list_is_not_asked(sysfs, procfs):
    plant(procfs, {"cpuinfo": cpuinfo("aperfmperf")})
    plant(sysfs, {f"{CPU}/scaling_governor": "performance"})
    assert read_state(sysfs=sysfs, procfs=procfs).frequency_ghz is None


def test_temperatures_are_those_of_all_sensors_and_of_equal_names_the_hotter(sysfs):
    files = {
        "class/hwmon/hwmon0/name": "cpu_thermal",
        "class/hwmon/hwmon0/temp1_input": 61_500,
        "class/hwmon/hwmon1/name": "coretemp",
        "class/hwmon/hwmon1/temp1_input": 70_000,
        "class/hwmon/hwmon1/temp1_label": "Package id 0",
        "class/hwmon/hwmon2/name": "nvme",
        "class/hwmon/hwmon2/temp1_input": 90_000,
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": 62_000,
    }
    expected = {"cpu_thermal": 62.0, "coretemp Package id 0": 70.0, "nvme": 90.0}
    assert read_temperatures(sysfs=plant(sysfs, files)) == expected


def test_the_heat_of_the_processor_is_that_of_its_hottest_sensor_and_not_of_a_disk():
    assert processor_c({"CPU_therm": 50.0, "SOC0_therm": 55.5, "nvme": 90.0}) == 55.5
    assert processor_c({"nvme": 90.0, "iwlwifi": 50.0}) is None
    assert processor_c({}) is None


@pytest.mark.parametrize(
    ("said", "throttled"), [("0", False), ("50000", False), ("50005", True), ("0x8", True), ("?", None)]
)
def test_a_raspberry_pi_tells_whether_it_is_held_back_now(sysfs, procfs, said, throttled):
    assert read_state(sysfs=plant(sysfs, {FIRMWARE: said}), procfs=procfs).throttled is throttled


def test_a_system_that_says_nothing_is_not_invented(sysfs, procfs):
    state = read_state(sysfs=sysfs, procfs=procfs)
    assert state == ProcessorState()
    assert state.provenance() == {}


def test_provenance_holds_what_is_known_in_the_words_that_episodes_read():
    state = ProcessorState(1.8, 61.25, "ondemand", throttled=True)
    expected = {"frequency_ghz": "1.800", "temperature_c": "61.2", "governor": "ondemand", "throttled": "yes"}
    assert state.provenance() == expected
    assert ProcessorState(throttled=False).provenance() == {"throttled": "no"}


def test_this_machine_can_be_asked():
    state = read_state()
    assert state.frequency_ghz is None or 0.05 < state.frequency_ghz < 10


def test_numpy_is_not_needed():
    code = "import sys, autocompress.profiling.conditions; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
