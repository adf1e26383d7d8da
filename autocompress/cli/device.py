"""``autocompress device``: profiles of devices, and the boards that this machine reaches."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from autocompress.cli.terminal import say, show
from autocompress.errors import ConfigError, DeviceError

app = typer.Typer(no_args_is_help=True)

Board = Annotated[str, typer.Argument(metavar="NAME", help="Name of the board, and of its profile.")]
Tracker = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation
    typer.Option(metavar="HOST:PORT", help="A tracker of TVM."),
]
Key = Annotated[str, typer.Option(help="The name under which the tracker knows the board.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port at which the agent listens on the board.")]


@app.command("list")
def list_devices() -> None:
    """List every device profile, and how the boards that were added are reached."""
    from autocompress.boards.address import added
    from autocompress.devices.load import list_profiles, load_profile

    reached, rows = added(), []
    for name in list_profiles():
        profile = load_profile(name)
        cells = [name, profile.title, profile.architecture, str(profile.core_count), profile.calibration]
        rows.append([*cells, str(reached.get(name, ""))])
    new = [
        [name, "not probed yet", "", "", "", str(way)] for name, way in reached.items() if name not in list_profiles()
    ]
    show(["name", "device", "architecture", "cores", "calibration", "reached at"], rows + new)


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


@app.command("serve")
def serve(
    port: Port = 9190,
    tracker: Tracker = None,
    key: Key = "",
    insecure_bind: Annotated[
        str,
        typer.Option(metavar="HOST", help="Listen at this address instead of loopback; there is no authentication."),
    ] = "127.0.0.1",
) -> None:
    """Run the agent on a board, so that other machines can measure on it."""
    from autocompress.boards import agent
    from autocompress.boards.address import parse_place

    place = parse_place(tracker) if tracker else None
    agent.serve(agent.Service(insecure_bind, port, place, key), say=say)


@app.command("add")
def add(
    name: Board,
    rpc: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(metavar="HOST:PORT", help="Where its agent listens."),
    ] = None,
    tracker: Tracker = None,
    key: Key = "",
    ssh: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(metavar="USER@HOST", help="Start its agent over ssh and forward a port to it."),
    ] = None,
    python: Annotated[str, typer.Option(help="With --ssh: the board's Python.")] = "python3",
    port: Port = 9190,
) -> None:
    """Remember how a board is reached."""
    from autocompress.boards import address

    ways: list[address.Address] = []
    if rpc:
        ways.append(address.Direct(address.parse_place(rpc, option="--rpc")))
    if tracker and key:
        ways.append(address.Tracked(address.parse_place(tracker), key))
    if ssh:
        ways.append(address.Ssh(ssh, python, port))
    if len(ways) != 1:
        raise ConfigError(
            f"{len(ways)} ways to reach {name} are given.",
            right="A board has one: --rpc HOST:PORT, --tracker HOST:PORT with --key KEY, or --ssh USER@HOST.",
            next_step=f"For example: autocompress device add {name} --ssh pi@raspberrypi.local",
        )
    path = address.save(name, ways[0])
    say(f"{name} is reached at {ways[0]}; kept in {path}")
    say(f"Next: autocompress device probe {name}")


@app.command("probe")
def probe_board(name: Board) -> None:
    """Look at a board: what it is, how it is, how far away, and whether its profile is right (or write one)."""
    from autocompress.boards.address import load
    from autocompress.boards.probe import probe
    from autocompress.boards.ssh import reach

    address = load(name)
    if address is None:
        raise DeviceError(
            f"How the board {name} is reached is not known.",
            right="A board is added before it is probed.",
            next_step=f"Run: autocompress device add {name} --ssh USER@HOST",
        )
    with reach(name, address) as connection:
        found = probe(connection)
    profile, health = found.profile, found.health
    hottest = max(health.temperatures_c.values(), default=None)
    rows = {
        "processor": f"{profile.cpu}, {profile.core_count} cores, {', '.join(profile.isa)}",
        **({"emulated by": f"{profile.emulated}: its times are no device's"} if profile.emulated else {}),
        "memory": f"{profile.ram_bytes / 2**30:.1f} GiB, {health.free_memory_bytes / 2**30:.1f} free",
        "engines": ", ".join(f"{engine} {version}" for engine, version in profile.engines.items()) or "none",
        "temperature": "not said" if hottest is None else f"{hottest:.0f} degrees C",
        "clock": f"{health.frequency_mhz:.0f} MHz, {health.governor}" if health.frequency_mhz else "not said",
        "load": f"{health.load:.2f}",
        "disk": f"{health.free_disk_bytes / 2**30:.1f} GiB free",
        "round trip": f"{found.round_trip_ms:.2f} ms",
    }
    show(["what", "found"], [[what, text] for what, text in rows.items()], title=f"{name} at {address}")
    for worry in health.worries():
        say(f"Measurements may be off: {worry}.")
    for difference in found.differences:
        say(f"The profile {name} is wrong: {difference}.")
    say(f"Written to {found.written}" if found.written else f"Checked against the profile {name}.")
