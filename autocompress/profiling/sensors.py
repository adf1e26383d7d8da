"""Find what tells energy or power on this system: counters of the processor, and sensors on a board's supply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autocompress.profiling.sysfs import SYS, read_number, read_text

SENSOR_CHIPS = "ina"
"""Chips that measure a board's supply are called so and a number (ina219, ina226, ina3221)."""


@dataclass(frozen=True)
class Counter:
    """A counter of energy that only grows, until it begins anew.

    Attributes:
        path: File that holds it, in microjoules.
        range_uj: Where it begins anew.
        source: What it counts.
    """

    path: Path
    range_uj: float
    source: str

    def read_uj(self) -> float | None:
        """Return what it says now, in microjoules."""
        return read_number(self.path)

    def between_uj(self, before_uj: float, after_uj: float) -> float:
        """Return the energy between two readings, in microjoules, of which it began anew between them once at most."""
        grown_uj = after_uj - before_uj
        return grown_uj if grown_uj >= 0 else grown_uj + self.range_uj


@dataclass(frozen=True)
class Rail:
    """A sensor of power.

    Attributes:
        paths: Files whose values are multiplied: one of power, or one of voltage and one of current.
        watts: What a product of 1 means, in watts.
        source: What it measures.
    """

    paths: tuple[Path, ...]
    watts: float
    source: str

    def read_w(self) -> float | None:
        """Return the power now, in watts."""
        product = self.watts
        for path in self.paths:
            value = read_number(path)
            if value is None:
                return None
            product *= value
        return product


def find_counters(*, sysfs: Path = SYS) -> tuple[Counter, ...]:
    """Return RAPL's counters of all processor packages (Intel's and AMD's), none if one of them cannot be read.

    Reading them takes root on most systems.
    """
    counters = []
    for folder in sorted(sysfs.glob("class/powercap/intel-rapl:*")):
        name, range_uj = read_text(folder / "name"), read_number(folder / "max_energy_range_uj")
        # intel-rapl:0:0 is a part of intel-rapl:0, and "psys" contains the packages.
        if folder.name.count(":") != 1 or not name.startswith("package"):
            continue
        counter = Counter(folder / "energy_uj", range_uj or 0.0, f"rapl {name}")
        if not range_uj or counter.read_uj() is None:
            return ()
        counters.append(counter)
    return tuple(counters)


def find_rail(*, sysfs: Path = SYS) -> Rail | None:
    """Return the sensor of the board's supply, ``None`` where there is none that can be read.

    Of several it is the one whose label ends in ``_IN`` (the whole board on Jetsons), else the first.
    """
    rails = [rail for rail in (*_hwmon(sysfs), *_iio(sysfs)) if rail.read_w() is not None]
    whole = (rail for rail in rails if rail.source.upper().endswith("_IN"))
    return next(whole, rails[0] if rails else None)


def _hwmon(sysfs: Path) -> Iterator[Rail]:
    """Yield the rails of hwmon, which writes microwatts, millivolts and milliamperes."""
    for folder in sorted(sysfs.glob("class/hwmon/hwmon*")):
        chip = read_text(folder / "name")
        if not chip.startswith(SENSOR_CHIPS):
            continue
        for path in sorted(folder.glob("power*_input")):
            number = path.name.removeprefix("power").removesuffix("_input")
            yield Rail((path,), 1e-6, _named(chip, folder / f"power{number}_label"))
        for path in sorted(folder.glob("curr*_input")):
            number = path.name.removeprefix("curr").removesuffix("_input")
            if not (folder / f"power{number}_input").exists():
                yield Rail((folder / f"in{number}_input", path), 1e-6, _named(chip, folder / f"in{number}_label"))


def _iio(sysfs: Path) -> Iterator[Rail]:
    """Yield the rails of IIO, which writes milliwatts, or what becomes such times its scale."""
    for folder in sorted(sysfs.glob("bus/iio/devices/iio:device*")):
        chip = read_text(folder / "name")
        if not chip.startswith(SENSOR_CHIPS):
            continue
        for path in sorted(folder.glob("in_power*_input")):
            number = path.name.removeprefix("in_power").removesuffix("_input")
            yield Rail((path,), 1e-3, _named(chip, folder / f"rail_name_{number}"))
        for path in sorted(folder.glob("in_power*_raw")):
            number = path.name.removeprefix("in_power").removesuffix("_raw")
            scale = folder / f"in_power{number}_scale"
            yield Rail((path, scale), 1e-3, _named(chip, folder / f"in_power{number}_label"))


def _named(chip: str, label: Path) -> str:
    return f"{chip} {read_text(label)}".strip()
