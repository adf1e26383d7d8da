from __future__ import annotations

import pytest

from autocompress.cost import Measurement
from autocompress.profiling.energy import (
    FEWEST_RUNS,
    CounterMeter,
    RailMeter,
    find_meter,
    from_power,
    metered_mj,
    with_power,
)
from tests.profiling.clocks import Clock, taking
from tests.profiling.trees import plant

RAPL = "class/powercap/intel-rapl:0/"
RANGE_UJ = 1_000_000
COUNTER = {RAPL + "name": "package-0", RAPL + "energy_uj": 900_000, RAPL + "max_energy_range_uj": RANGE_UJ}
RAIL = {"class/hwmon/hwmon0/name": "ina219", "class/hwmon/hwmon0/power1_input": 4_000_000}
MEASURED = Measurement((3.0, 1.0, 2.0), 2, 1, 1, "host", "onnxruntime", 1, {"date": "today"})


def test_a_counter_is_read_before_and_after_and_may_begin_anew_in_between(tmp_path):
    meter, clock = find_meter(sysfs=plant(tmp_path, COUNTER)), Clock()
    assert isinstance(meter, CounterMeter)
    call, run_uj, counted = taking(clock, 0.125), 20_000, [900_000]

    def runs() -> None:
        call()
        counted.append((counted[-1] + run_uj) % RANGE_UJ)
        (tmp_path / RAPL / "energy_uj").write_text(f"{counted[-1]}\n")

    assert metered_mj(runs, meter, seconds=1.0, clock=clock) == pytest.approx(run_uj / 1e3)
    assert len(counted) == 1 + 8
    assert counted[-1] < counted[0]
    assert meter.source == "rapl package-0"


def test_counters_of_several_packages_are_summed(tmp_path):
    other = {path.replace("rapl:0", "rapl:1"): content for path, content in COUNTER.items()}
    meter = find_meter(sysfs=plant(tmp_path, {**COUNTER, **other, RAPL.replace(":0", ":1") + "name": "package-1"}))
    meter.start()
    for number, energy_uj in enumerate((950_000, 970_000)):
        plant(tmp_path, {RAPL.replace(":0", f":{number}") + "energy_uj": energy_uj})
    assert meter.stop(1.0) == pytest.approx((50_000 + 70_000) / 1e6)
    assert meter.source == "rapl package-0 + rapl package-1"


def test_power_is_averaged_over_the_stretch(tmp_path):
    rail = find_meter(sysfs=plant(tmp_path, RAIL)).rail
    meter = RailMeter(rail, period_s=60)
    meter.start()
    plant(tmp_path, {"class/hwmon/hwmon0/power1_input": 6_000_000})
    assert meter.stop(2.0) == pytest.approx((4 + 6) / 2 * 2.0)


def test_a_thread_reads_power_while_the_artifact_runs(tmp_path):
    readings = []

    class Counted:
        source = "ina219"

        def read_w(self) -> float:
            readings.append(4.0)
            return 4.0

    meter, clock = RailMeter(Counted(), period_s=0.001), Clock()
    call = taking(clock, 0.25)

    def wait() -> None:
        call()
        seen = len(readings)
        while len(readings) == seen:
            meter._over.wait(0.001)

    assert metered_mj(wait, meter, seconds=2.0, clock=clock) == pytest.approx(4.0 * 0.25 * 1e3)
    assert len(readings) >= 2 + 8


def test_a_slow_artifact_still_runs_a_few_times(tmp_path):
    meter, clock, runs = find_meter(sysfs=plant(tmp_path, RAIL)), Clock(), []
    call = taking(clock, 10.0)
    energy_mj = metered_mj(lambda: runs.append(call()), meter, seconds=1.0, clock=clock)
    assert len(runs) == FEWEST_RUNS
    assert energy_mj == pytest.approx(4.0 * 10.0 * 1e3)


def test_counters_go_before_sensors_and_a_system_with_neither_has_no_meter(tmp_path):
    assert isinstance(find_meter(sysfs=plant(tmp_path / "both", {**COUNTER, **RAIL})), CounterMeter)
    assert find_meter(sysfs=plant(tmp_path / "none", {})) is None


@pytest.mark.parametrize("file", [RAPL + "energy_uj", "class/hwmon/hwmon0/power1_input"])
def test_what_can_no_longer_be_read_gives_no_energy(tmp_path, file):
    meter, clock = find_meter(sysfs=plant(tmp_path, COUNTER if "rapl" in file else RAIL)), Clock()
    (tmp_path / file).unlink()
    assert metered_mj(taking(clock, 0.5), meter, clock=clock) is None


def test_an_artifact_that_fails_leaves_no_thread(tmp_path):
    meter = find_meter(sysfs=plant(tmp_path, RAIL))

    def fail() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        metered_mj(fail, meter)
    assert not meter._thread.is_alive()


def test_watts_times_milliseconds_are_millijoules():
    assert from_power(5.0, 20.0) == 5.0 * (20.0 / 1e3) * 1e3


def test_the_power_of_a_profile_stands_in_where_nothing_was_metered_and_says_so():
    estimated = with_power(MEASURED, 5.0)
    assert estimated.energy_mj == 5.0 * 2.0
    assert estimated.provenance == {"date": "today", "energy_source": "power_w of the profile"}
    assert with_power(estimated, 99.0) == estimated
    assert with_power(MEASURED, None) == MEASURED
