"""Look at a board: what it is, how it is, how far away it is, and whether its profile tells the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autocompress.boards.connection import Connection
from autocompress.boards.facts import Health
from autocompress.devices.detect import profile_of, write_profile
from autocompress.devices.load import list_profiles, load_profile
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile

RAM_TOLERANCE = 0.15
"""Share by which memory may differ: systems keep some for themselves."""


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        profile: Of the board, as it describes itself.
        health: How it is now.
        round_trip_ms: Median time of a call that does nothing.
        written: The profile's file, if there was none before.
        differences: Where the profile that there was says something else.
    """

    profile: DeviceProfile
    health: Health
    round_trip_ms: float
    written: Path | None
    differences: tuple[str, ...]


def probe(connection: Connection) -> Probe:
    """Look at the board; write its profile into the user's folder if there is none of its name, else check that.

    Raises:
        DeviceError: It cannot be reached, or does not describe its processor.
        ConfigError: Its profile is not valid.
    """
    facts = connection.facts()
    described = profile_of(facts.system, bandwidth_gb_s=facts.bandwidth_gb_s)
    triple = {"mtriple": f"{described.architecture}-linux-gnu"}  # This machine may be of another architecture.
    about = {"name": connection.name, "description": f"As it described itself at {connection}."}
    found = described.model_copy(update={**about, "tvm_target": {**described.tvm_target, **triple}})
    if connection.name in list_profiles():
        differences, written = compare(load_profile(connection.name), found), None
    else:
        differences, written = (), write_profile(found, data_folders("device_profiles")[0])
    return Probe(found, facts.health, connection.round_trip_ms(), written, differences)


def compare(said: DeviceProfile, found: DeviceProfile) -> tuple[str, ...]:
    """Return in words where a profile says something else than the board does."""
    differences = [
        f"{field} is {here!r} in the profile, {there!r} on the board"
        for field in ("architecture", "core_count", "vector_bits", "emulated")
        if (here := getattr(said, field)) != (there := getattr(found, field))
    ]
    if missing := sorted(set(said.isa) - set(found.isa)):
        differences.append(f"the board lacks {', '.join(missing)}, which the profile has")
    if abs(found.ram_bytes / said.ram_bytes - 1) > RAM_TOLERANCE:
        differences.append(
            f"ram_bytes is {said.ram_bytes / 2**30:.1f} GiB in the profile, {found.ram_bytes / 2**30:.1f} on the board"
        )
    differences += [
        f"the engine {engine} is {version} in the profile, {found.engines.get(engine, 'absent')} on the board"
        for engine, version in said.engines.items()
        if found.engines.get(engine) != version
    ]
    return tuple(differences)
