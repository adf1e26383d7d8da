"""Tune the compiler to this machine, and keep what was found for every build that follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from autocompress.compiler.tuning_log import FOLDER, TuningLog, find_log, save_log
from autocompress.devices.paths import data_folders
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.progress import Progress, quiet
from autocompress.shape import ModelShape

Tune: TypeAlias = Literal["off", "tiles", "metaschedule"]
TVM = "tvm"


def read_tune(how: str | None, engine: str) -> Tune:
    """Return how to tune: as asked for, and where nothing is, tiles for the engine that has any.

    Raises:
        ConfigError: There is no such way, or the engine cannot be tuned.
    """
    if how is None:
        return "tiles" if engine == TVM else "off"
    for known in get_args(Tune):
        if how == known and (how == "off" or engine == TVM):
            found: Tune = known
            return found
    raise ConfigError(
        f"Tuning by {how!r} is asked for the engine {engine}.",
        right=f"The engine tvm is tuned by {', '.join(get_args(Tune))}; others only by off.",
        next_step="Correct --tune, or add --engine tvm.",
    )


def host_log() -> TuningLog:
    """Return what is known of this machine."""
    from autocompress.compiler.target import Target

    return find_log(str(Target.host()))


def tune_host(shapes: Iterable[ModelShape], *, tokens: int, how: Tune, progress: Progress = quiet) -> TuningLog:
    """Time the tiles of all products of ``shapes`` that are not known yet, and keep each as soon as it is.

    A log that cannot be read is replaced. Takes one to two seconds for each kind of product; ``metaschedule`` takes
    minutes for each size.

    Raises:
        MissingDependencyError: A package that MetaSchedule needs is not installed.
    """
    from autocompress.compiler.local_timer import LocalTimer
    from autocompress.compiler.lowering import lower
    from autocompress.compiler.meta_schedule import require_metaschedule, search_trace
    from autocompress.compiler.target import Target, machine_of
    from autocompress.compiler.tuning import Tuned, products, trace, tune

    if how == "metaschedule":
        require_metaschedule()
    target, folder = Target.host(), data_folders(FOLDER)[0]
    machine, timer = machine_of(target.llvm()), LocalTimer(target)
    stage = "tune"

    def told(state: Tuned) -> None:
        if state.done:
            save_log(state.log, folder)
        progress(stage, state.done, state.total, state.note)

    try:
        log = host_log()
    except StorageError:
        log = TuningLog(str(target))
    shapes = tuple(dict.fromkeys(shapes))
    programs = [lower(shape, tokens=tokens, machine=machine) for shape in shapes]
    log = tune(products(programs), machine, log, timer, told)
    if how == "metaschedule":
        stage = "metaschedule"
        tiles = log.tiles(machine)
        tiled = [lower(shape, tokens=tokens, machine=machine, tiles=tiles) for shape in shapes]
        log = trace(tiled, log, timer, lambda kernel: search_trace(kernel, target, timer.time_us), told)
    return log
