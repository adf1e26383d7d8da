"""Find device profiles by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import ValidationError

from autocompress.devices.detect import HOST, detect_host
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.devices.validation import did_you_mean, explain, read_mapping
from autocompress.errors import ConfigError


def list_profiles() -> dict[str, Path]:
    """Return name -> file of every profile; where a name occurs twice, the file that ``load_profile`` reads."""
    found: dict[str, Path] = {}
    for folder in data_folders("device_profiles"):
        for file in folder.glob("*.yaml"):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def load_profile(name: str) -> DeviceProfile:
    """Read the profile called ``name``; a file that says ``detect: true`` means this machine, looked at now.

    Raises:
        ConfigError: No profile has that name, or its file is not valid.
    """
    profiles = list_profiles()
    if name not in profiles:
        near = did_you_mean(name, list(profiles))
        raise ConfigError(
            f"There is no device profile {name!r}.",
            right=f"Did you mean {near}?" if near else f"Profiles are {', '.join(profiles)}.",
            next_step="Run `autocompress device list` and name one of them.",
        )
    return read_profile(profiles[name])


def read_profile(path: Path) -> DeviceProfile:
    """Read and check one profile file, whose name is ``<profile name>.yaml``.

    Raises:
        ConfigError: The file cannot be read or is not valid; names the file and each wrong field.
    """
    data = read_mapping(path)
    if data.get("detect") is True and data.get("name") == HOST == path.stem:
        return _this_machine()
    try:
        profile = DeviceProfile.model_validate(data)
    except ValidationError as error:
        raise explain(
            error, DeviceProfile, where=str(path), next_step="Correct the file; `autocompress device show` checks it."
        ) from None
    if profile.name != path.stem:
        raise ConfigError(
            f"{path} describes {profile.name!r}.",
            right=f"A profile's file is called {profile.name}.yaml.",
            next_step="Rename the file, or correct its name field.",
        )
    return profile


@cache
def _this_machine() -> DeviceProfile:
    """Look once: measuring the bandwidth twice would give two profiles."""
    return detect_host()
