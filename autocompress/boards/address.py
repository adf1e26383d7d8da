"""Where a board is reached, and the user's file of it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from autocompress.devices.paths import home
from autocompress.errors import ConfigError

PORT = 9190
"""Where an agent listens unless it is told otherwise."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_PYTHON = re.compile(r"[\w~./-]+")
_DESTINATION = re.compile(r"[A-Za-z0-9_][\w.@:\[\]%-]*")


@dataclass(frozen=True)
class Place:
    """A host and a port, written ``HOST:PORT``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Direct:
    """An agent that listens at a place that this machine reaches."""

    place: Place

    def __str__(self) -> str:
        return str(self.place)


@dataclass(frozen=True)
class Tracked:
    """An agent that is registered at a tracker under a key."""

    tracker: Place
    key: str

    def __str__(self) -> str:
        return f"{self.key} at the tracker {self.tracker}"


@dataclass(frozen=True)
class Ssh:
    """A board to which ``ssh`` leads; the agent is started by it and listens to loopback only.

    Attributes:
        destination: ``USER@HOST``, or a host of the user's ssh configuration.
        python: The board's Python in which AutoCompress is installed.
        port: At which the agent listens there.
    """

    destination: str
    python: str = "python3"
    port: int = PORT

    def __str__(self) -> str:
        return f"ssh {self.destination}"


Address: TypeAlias = Direct | Tracked | Ssh


def parse_place(text: str, *, option: str = "--tracker") -> Place:
    """Read ``HOST:PORT``.

    Raises:
        ConfigError: It is not written so.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"{option} is {text!r}.",
            right=f"It is written HOST:PORT, for example 192.168.0.17:{PORT}.",
            next_step=f"Correct {option}.",
        )
    return Place(host.strip("[]"), int(port))


def save(name: str, address: Address) -> Path:
    """Write where the board ``name`` is reached and return the file.

    Raises:
        ConfigError: The name or the ssh destination is none.
    """
    if not _NAME.fullmatch(name) or name == "host":
        raise ConfigError(
            f"A board cannot be called {name!r}.",
            right="A name has small letters, digits, dots and dashes; host is this machine.",
            next_step="Choose another name, for example rpi4.",
        )
    if isinstance(address, Ssh) and not _DESTINATION.fullmatch(address.destination):
        raise ConfigError(
            f"--ssh is {address.destination!r}.",
            right="It is written USER@HOST, or is a host of the ssh configuration.",
            next_step="Correct --ssh.",
        )
    if isinstance(address, Ssh) and not _PYTHON.fullmatch(address.python):
        raise ConfigError(
            f"--python is {address.python!r}.",
            right="It is a command or the path of one, which the board's shell reads.",
            next_step="Correct --python, for example ~/autocompress/bin/python.",
        )
    path = _folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps({"kind": type(address).__name__.lower(), **asdict(address)}, indent=1) + "\n")
    return draft.replace(path)


def load(name: str) -> Address | None:
    """Return where the board ``name`` is reached; ``None`` if it was never added.

    Raises:
        ConfigError: Its file cannot be read.
    """
    path = _folder() / f"{name}.json"
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text())
        match fields.pop("kind"):
            case "direct":
                return Direct(Place(**fields["place"]))
            case "tracked":
                return Tracked(Place(**fields["tracker"]), fields["key"])
            case "ssh":
                return Ssh(**fields)
            case other:
                raise ValueError(f"kind {other}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}).",
            right="It says where a board is reached, as autocompress device add writes it.",
            next_step=f"Add the board again: autocompress device add {name} --rpc HOST:PORT",
        ) from None


def added() -> dict[str, Address]:
    """Return name -> address of every board that was added."""
    found = {path.stem: load(path.stem) for path in sorted(_folder().glob("*.json"))}
    return {name: address for name, address in found.items() if address is not None}


def _folder() -> Path:
    return home() / "connections"
