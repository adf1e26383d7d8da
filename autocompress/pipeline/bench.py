"""The way to a device: this machine, a board that was added, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autocompress.boards.address import load
from autocompress.boards.remote import RemoteRunner
from autocompress.boards.ssh import reach
from autocompress.cost import Measurement
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import DeviceError
from autocompress.pipeline.known import HOST
from autocompress.pipeline.tuning import TVM
from autocompress.profiling.runner import LocalRunner, Runner

if TYPE_CHECKING:
    from autocompress.boards.connection import Connection
    from autocompress.boards.remote_timer import RemoteTimer
    from autocompress.compiler.tuning import Timer


@dataclass(frozen=True)
class Bench:
    """Where samples are taken.

    Attributes:
        runner: Runs them.
        target: What they are compiled for; ``None`` is this machine.
        timer: Times kernels there, so that the compiler can be tuned; ``None`` leaves it untuned.
    """

    runner: Runner
    target: Mapping[str, object] | None = None
    timer: Timer | None = None


def is_added(profile: DeviceProfile) -> bool:
    """Return whether a device is a board of which it is known how it is reached.

    Raises:
        ConfigError: The file that says so cannot be read.
    """
    return profile.name != HOST and load(profile.name) is not None


def answers(profile: DeviceProfile) -> bool:
    """Return whether artifacts can be measured on a device: on this machine, and on a board that was added and answers.

    Raises:
        DeviceError: It was added and does not answer.
    """
    if profile.name == HOST:
        return True
    address = load(profile.name)
    if address is None:
        return False
    with reach(profile.name, address) as way:
        way.ask("ping", step="asked whether it is there")
    return True


@contextmanager
def reach_device(profile: DeviceProfile, *, engines: Sequence[str] = (), keeps: int = 1) -> Iterator[Bench | None]:
    """Yield the way to a board that was added, ``None`` for this machine and for a board that never was.

    Nothing is asked of the board before the first use.

    Args:
        profile: The device.
        engines: What is profiled there; kernels can be timed if TVM is among them.
        keeps: Most artifacts that the board holds at a time.
    """
    address = load(profile.name)
    if profile.name == HOST or address is None:
        yield None
        return
    with ExitStack() as held:
        way = held.enter_context(reach(profile.name, address))
        runner = held.enter_context(RemoteRunner(way, profile.name, keeps))
        timer = held.enter_context(_timer(way, profile)) if TVM in engines else None
        yield Bench(runner, profile.tvm_target, timer)


@contextmanager
def reach_runner(profile: DeviceProfile, *, keeps: int) -> Iterator[Runner]:
    """Yield what runs artifacts on a device that ``answers``; a board holds at most ``keeps`` of them at a time."""
    with reach_device(profile, keeps=keeps) as bench:
        yield LocalRunner(profile.name) if bench is None else bench.runner


def refuse_mixing(profile: DeviceProfile, measurement: Measurement) -> None:
    """Keep times of an emulator from passing for those of a device.

    Raises:
        DeviceError: The measurement was emulated and the profile is of a real device, or the reverse.
    """
    ran = measurement.provenance.get("emulated", "")
    if bool(ran) == bool(profile.emulated):
        return
    here = f"was emulated by {ran}" if ran else "ran on a real processor"
    right = "a real device" if ran else f"one that {profile.emulated} emulates"
    raise DeviceError(
        f"A sample {here}, and the profile {profile.name} is of {right}.",
        right="The times of an emulator are no device's: they are kept under a profile that says emulated.",
        next_step="Add the board under another name, and let autocompress device probe write its profile.",
    )


@contextmanager
def resumable() -> Iterator[None]:
    """Let the error of a device say that the command that it ends can be resumed."""
    try:
        yield
    except DeviceError as error:
        kept = "What was done before is kept: run the same command with --resume."
        raise DeviceError(error.wrong, right=error.right, next_step=f"{error.next_step} {kept}") from error


def _timer(way: Connection, profile: DeviceProfile) -> RemoteTimer:
    """Return what times kernels on a board; it needs the compiler."""
    from autocompress.boards.remote_timer import RemoteTimer
    from autocompress.compiler.target import Target

    return RemoteTimer(way, Target.of(profile.tvm_target))
