from __future__ import annotations

import pytest

from autocompress.profiling.sensors import Counter, find_counters, find_rail
from tests.profiling.trees import plant

RAPL = "class/powercap/intel-rapl:"


def package(number: int, **changes: object) -> dict[str, object]:
    files = {"name": f"package-{number}", "energy_uj": 1000, "max_energy_range_uj": 262_143_328_850, **changes}
    return {f"{RAPL}{number}/{name}": content for name, content in files.items()}


def test_all_packages_are_counted_but_neither_their_parts_nor_the_whole_platform(tmp_path):
    part = {f"{RAPL}0:0/name": "core", f"{RAPL}0:0/energy_uj": 1, f"{RAPL}0:0/max_energy_range_uj": 9}
    sysfs = plant(tmp_path, {**package(0), **package(1, energy_uj=2000), **package(2, name="psys"), **part})
    counters = find_counters(sysfs=sysfs)
    assert [counter.source for counter in counters] == ["rapl package-0", "rapl package-1"]
    assert [counter.read_uj() for counter in counters] == [1000, 2000]


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj"])
def test_packages_of_which_one_cannot_be_read_are_none(tmp_path, missing):
    sysfs = plant(tmp_path, {**package(0), **package(1)})
    (sysfs / f"{RAPL}1" / missing).unlink()
    (sysfs / f"{RAPL}1" / missing).mkdir()  # Reading it fails for root too.
    assert find_counters(sysfs=sysfs) == ()


def test_a_counter_that_begins_anew_has_gone_through_the_rest_of_its_range(tmp_path):
    counter = Counter(tmp_path, 10_000, "x")
    assert counter.between_uj(2_000, 9_000) == 7_000
    assert counter.between_uj(9_000, 500) == 1_500


HWMON = "class/hwmon/hwmon3/"
IIO = "bus/iio/devices/iio:device1/"


@pytest.mark.parametrize(
    ("files", "watts", "source"),
    [
        ({HWMON + "name": "ina226", HWMON + "power1_input": 3_250_000}, 3.25, "ina226"),
        ({HWMON + "name": "ina219", HWMON + "in1_input": 5_000, HWMON + "curr1_input": 800}, 4.0, "ina219"),
        ({IIO + "name": "ina226", IIO + "in_power2_raw": 130, IIO + "in_power2_scale": "25.0"}, 3.25, "ina226"),
        (
            {IIO + "name": "ina3221x", IIO + "in_power0_input": 2_500, IIO + "rail_name_0": "POM_5V_IN"},
            2.5,
            "ina3221x POM_5V_IN",
        ),
    ],
)
def test_power_is_read_in_the_units_of_each_interface(tmp_path, files, watts, source):
    rail = find_rail(sysfs=plant(tmp_path, files))
    assert rail.read_w() == pytest.approx(watts)
    assert rail.source == source


def test_a_chip_that_shows_power_and_current_is_one_rail(tmp_path):
    own = {HWMON + "in1_input": 5_000, HWMON + "curr1_input": 1, HWMON + "power1_input": 3_250_000}
    rail = find_rail(sysfs=plant(tmp_path, {HWMON + "name": "ina226", **own}))
    assert rail.read_w() == pytest.approx(3.25)


def test_the_rail_of_the_whole_board_is_preferred(tmp_path):
    files = {HWMON + "name": "ina3221"}
    for number, (label, current_ma) in enumerate([("VDD_CPU_GPU_CV", 100), ("VDD_IN", 1_200), ("VDD_SOC", 300)], 1):
        own = {f"in{number}_label": label, f"in{number}_input": 5_000, f"curr{number}_input": current_ma}
        files |= {HWMON + name: content for name, content in own.items()}
    rail = find_rail(sysfs=plant(tmp_path, files))
    assert rail.source == "ina3221 VDD_IN"
    assert rail.read_w() == pytest.approx(6.0)


def test_other_chips_and_sensors_that_say_nothing_are_none(tmp_path):
    files = {
        "class/hwmon/hwmon0/name": "amdgpu",
        "class/hwmon/hwmon0/power1_input": 9_000_000,
        HWMON + "name": "ina219",
        HWMON + "curr1_input": 800,
    }
    assert find_rail(sysfs=plant(tmp_path, files)) is None
