"""Tune the compiler to a device, and keep what was found for every build that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from autocompress.compiler.tuning_log import FOLDER, TuningLog, find_log, save_log
from autocompress.devices.paths import data_folders
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.progress import Progress, quiet
from autocompress.shape import ModelShape

if TYPE_CHECKING:
    from autocompress.compiler.build import Describe
    from autocompress.compiler.target import Target
    from autocompress.compiler.tuning import Timer, Tuned

Tune: TypeAlias = Literal["off", "tiles", "metaschedule"]
TVM = "tvm"


def read_tune(how: str | None, engine: str, *, board: str = "") -> Tune:
    """Return how to tune: as asked for, and where nothing is, tiles for the engine that has any.

    Args:
        how: What was asked for.
        engine: The engine.
        board: Name of the board; "" for this machine.

    Raises:
        ConfigError: There is no such way, the engine cannot be tuned, or a board cannot be tuned so.
    """
    if how is None:
        return "tiles" if engine == TVM else "off"
    if how == "metaschedule" and board:
        raise ConfigError(
            f"Tuning by metaschedule is asked for the board {board}.",
            right="It runs each of its many schedules on this machine; a board is tuned by tiles.",
            next_step=f"Run: autocompress profile {board} --engine tvm --tune tiles",
        )
    for known in get_args(Tune):
        if how == known and (how == "off" or engine == TVM):
            found: Tune = known
            return found
    raise ConfigError(
        f"Tuning by {how!r} is asked for the engine {engine}.",
        right=f"The engine tvm is tuned by {', '.join(get_args(Tune))}; others only by off.",
        next_step="Correct --tune, or add --engine tvm.",
    )


def kept_log(target: Describe = None) -> TuningLog:
    """Return what is known of a target, by default this machine.

    Raises:
        StorageError: The log is damaged.
    """
    from autocompress.compiler.target import Target

    return find_log(str(Target.of(target)))


def tune_host(shapes: Iterable[ModelShape], *, tokens: int, how: Tune, progress: Progress = quiet) -> TuningLog:
    """Tune this machine as ``tune_device`` does; ``metaschedule`` takes minutes more for each size.

    Raises:
        MissingDependencyError: A package that MetaSchedule needs is not installed.
    """
    from autocompress.compiler.local_timer import LocalTimer
    from autocompress.compiler.lowering import lower
    from autocompress.compiler.meta_schedule import require_metaschedule, search_trace
    from autocompress.compiler.target import Target, machine_of
    from autocompress.compiler.tuning import trace

    if how == "metaschedule":
        require_metaschedule()
    target, shapes = Target.host(), tuple(shapes)
    timer, machine = LocalTimer(target), machine_of(target.llvm())
    log = tune_device(shapes, tokens=tokens, target=target, timer=timer, progress=progress)
    if how == "metaschedule":
        tiles = log.tiles(machine)
        tiled = [lower(shape, tokens=tokens, machine=machine, tiles=tiles) for shape in dict.fromkeys(shapes)]
        told = _keeping("metaschedule", progress)
        log = trace(tiled, log, timer, lambda kernel: search_trace(kernel, target, timer.time_us), told)
    return log


def tune_device(
    shapes: Iterable[ModelShape], *, tokens: int, target: Target, timer: Timer, progress: Progress = quiet
) -> TuningLog:
    """Time the tiles of all products of ``shapes`` that are not known yet, and keep each as soon as it is.

    A log that cannot be read is replaced. Takes one to two seconds for each kind of product on this machine, some more
    on a board.

    Args:
        shapes: The models.
        tokens: Of their inputs.
        target: Of the device; its log is the one that ``compiler.build`` reads for this target.
        timer: The way to the device: ``compiler.local_timer``, or ``boards.remote_timer``.
        progress: Told of every class.

    Raises:
        DeviceError: The board cannot be reached; what was timed before is kept.
        MissingDependencyError: There is no compiler that links for the board.
    """
    from autocompress.compiler.lowering import lower
    from autocompress.compiler.target import machine_of
    from autocompress.compiler.tuning import products, tune

    machine = machine_of(target.llvm())
    try:
        log = kept_log(target)
    except StorageError:
        log = TuningLog(str(target))
    programs = [lower(shape, tokens=tokens, machine=machine) for shape in dict.fromkeys(shapes)]
    return tune(products(programs), machine, log, timer, _keeping("tune", progress))


def _keeping(stage: str, progress: Progress) -> Callable[[Tuned], None]:
    """Return what writes down and tells how far tuning is."""
    folder = data_folders(FOLDER)[0]

    def told(state: Tuned) -> None:
        if state.done:
            save_log(state.log, folder)
        progress(stage, state.done, state.total, state.note)

    return told
