"""``autocompress device``: profiles of devices."""

from __future__ import annotations

from typing import Annotated

import typer

from autocompress.cli.terminal import say, show

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_devices() -> None:
    """List every device profile."""
    from autocompress.devices.load import list_profiles, load_profile

    rows = []
    for name in list_profiles():
        profile = load_profile(name)
        rows.append([name, profile.title, profile.architecture, str(profile.core_count), profile.calibration])
    show(["name", "device", "architecture", "cores", "calibration"], rows)


@app.command("show")
def show_device(name: Annotated[str, typer.Argument(help="Name of a profile.")]) -> None:
    """Print one device profile, each spec with its source."""
    from autocompress.devices.load import load_profile

    profile = load_profile(name)
    sources = profile.sources
    rows = [[key, str(value), sources.get(key, "")] for key, value in profile.model_dump(mode="json").items()]
    show(["field", "value", "source"], [row for row in rows if row[0] != "sources"], title=profile.title)


@app.command("detect")
def detect() -> None:
    """Detect this machine and write its profile, host.yaml, into the user's folder."""
    from autocompress.devices.detect import detect_host, write_profile
    from autocompress.devices.paths import data_folders

    profile = detect_host()
    path = write_profile(profile, data_folders("device_profiles")[0])
    say(f"{profile.cpu}: {profile.core_count} cores, {', '.join(profile.isa)}")
    say(f"Written to {path}")
