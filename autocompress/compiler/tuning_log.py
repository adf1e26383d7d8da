"""The tiles that were measured to be fastest on a processor, kept as JSON, one file a target."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from autocompress.compiler.machine import Machine, Tile, Tiles
from autocompress.compiler.program import Kernel, Program
from autocompress.devices.paths import data_folders, write_text
from autocompress.errors import StorageError

FORMAT_VERSION = 1
FOLDER = "tuning"
"""Kind of data folder in which the logs are."""
SIZES = (32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Depths and columns that stand for all smaller ones down to the next; above them, multiples of the last."""
Source: TypeAlias = Literal["timed", "metaschedule"]


def size_class(size: int) -> int:
    """Return the depth or number of columns at which a product of ``size`` is timed."""
    return next((known for known in SIZES if size <= known), -(-size // SIZES[-1]) * SIZES[-1])


@cache
def tvm_version() -> str:
    """Return the version of the installed TVM, without loading it."""
    try:
        return version("apache-tvm")
    except PackageNotFoundError:
        return "unknown"


TRACED = "gemm_f32_traced"
"""Family of the kernels that MetaSchedule wrote."""


@cache
def kernel_code() -> str:
    """Return a short hash of the code that writes kernels: what was timed of other code says nothing of this one.

    Weights are unpacked as ``packing`` lays them out.
    """
    here = Path(__file__).parent
    rooms = sorted(file for room in ("schedules", "intrinsics") for file in (here / room).glob("*.py"))
    files = [here / "packing.py", *rooms]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@dataclass(frozen=True)
class Trace:
    """The steps by which MetaSchedule makes a plain loop nest fast, as JSON."""

    steps: str

    def __str__(self) -> str:
        """Return a short hash: what names a kernel."""
        return hashlib.sha256(self.steps.encode()).hexdigest()[:12]


@dataclass(frozen=True, order=True)
class KernelClass:
    """Products that share one tile.

    Attributes:
        family: See ``machine.Tiles``.
        dot: The dot product and its lanes, e.g. ``vnni16``; ``lanes16`` for vectors of f32.
        rows: Exactly.
        depth: See ``size_class``.
        columns: See ``size_class``.
    """

    family: str
    dot: str
    rows: int
    depth: int
    columns: int

    @classmethod
    def of(cls, kernel: Kernel) -> KernelClass | None:
        """Return the class of a product; ``None`` for kernels of other kinds."""
        size = dict(kernel.size)
        if "tile" not in size or kernel.family == TRACED:
            return None
        family = f"{kernel.family}_{size['bits']}" if "bits" in size else kernel.family
        dot = size.get("dot")
        name = f"{dot.name}{dot.lanes}" if dot else f"lanes{size['tile'].lanes}"
        return cls(family, name, size["rows"], size_class(size["depth"]), size_class(size["columns"]))

    def __str__(self) -> str:
        """Say family, rows x columns x depth."""
        return f"{self.family} {self.rows} x {self.columns} x {self.depth}"


@dataclass(frozen=True)
class Entry:
    """What was measured of one class.

    Attributes:
        tile: ``str`` of the chosen tile, e.g. ``8x32``.
        microseconds: Tile -> time of one product.
        tvm: Version that compiled the kernels.
        date: Of the measurement, ISO 8601.
        source: What found it.
        kernels: ``kernel_code`` that was timed.
        traces: Kernel by its full name -> steps of MetaSchedule's trace, where that beat the tile at exactly these
            dimensions; empty where it was searched and did not.
    """

    tile: str
    microseconds: Mapping[str, float]
    tvm: str
    date: str
    source: Source = "timed"
    kernels: str = field(default_factory=kernel_code)
    traces: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        """Whether the installed TVM compiled the kernels of this version."""
        return (self.tvm, self.kernels) == (tvm_version(), kernel_code())

    def fitted(self, columns: int, lanes: int) -> Tile | None:
        """Return the tile for a product of so many columns; ``None`` where its vectors are not of ``lanes``."""
        tile = tile_of(self.tile, lanes)
        return None if tile.panel % lanes else replace(tile, panel=min(tile.panel, -(-columns // lanes) * lanes))


def tile_of(name: str, lanes: int) -> Tile:
    """Return the tile of which ``name`` is the ``str``.

    Raises:
        ValueError: It is of none.
    """
    rows, panel = map(int, name.removesuffix("+").split("x"))
    if rows < 1 or panel < 1:
        raise ValueError(f"the tile {name!r} is empty")
    return Tile(rows, panel, lanes, name.endswith("+"))


@dataclass(frozen=True)
class TuningLog:
    """What was measured on one target.

    Attributes:
        target: ``str(Target)`` of the processor; nothing here says anything of another one.
        entries: Of any version of TVM and of the kernels; those of others than the present ones are not used.
    """

    target: str
    entries: Mapping[KernelClass, Entry] = field(default_factory=dict)

    def entry(self, kernel_class: KernelClass) -> Entry | None:
        """Return what the installed TVM and the kernels of this version were measured to do for a class."""
        found = self.entries.get(kernel_class)
        return found if found is not None and found.is_current else None

    def learnt(self, kernel_class: KernelClass, entry: Entry) -> TuningLog:
        """Return the log with one entry more, or another one in its place."""
        return replace(self, entries={**self.entries, kernel_class: entry})

    def tiles(self, machine: Machine) -> Tiles:
        """Return the choice of tiles by this log, and by the machine's rule where it has no entry."""

        def choose(family: str, rows: int, depth: int, columns: int) -> Tile:
            rule = machine.rule(family, rows, depth, columns)
            known = self.entry(
                KernelClass(family, machine.multiplier(family), rows, size_class(depth), size_class(columns))
            )
            return rule if known is None else known.fitted(columns, rule.lanes) or rule

        return choose

    def trace(self, kernel: Kernel) -> Trace | None:
        """Return MetaSchedule's trace for exactly this kernel; an empty one where none is faster than its tile."""
        kernel_class = KernelClass.of(kernel)
        known = None if kernel_class is None else self.entry(kernel_class)
        return Trace(known.traces[str(kernel)]) if known is not None and str(kernel) in known.traces else None

    def traced(self, program: Program) -> Program:
        """Return the program with the kernels of MetaSchedule where they are faster."""

        def better(kernel: Kernel) -> Kernel:
            trace = self.trace(kernel)
            return Kernel.of(TRACED, **dict(kernel.size), trace=trace) if trace and trace.steps else kernel

        return replace(program, calls=tuple(replace(call, kernel=better(call.kernel)) for call in program.calls))

    @property
    def digest(self) -> str:
        """Short hash of all that this log makes of kernels here and now; ``rule`` where that is nothing."""
        used = [
            [str(kernel_class), kernel_class.dot, entry.tile, sorted(item for item in entry.traces.items() if item[1])]
            for kernel_class, entry in sorted(self.entries.items())
            if entry.is_current
        ]
        return hashlib.sha256(json.dumps(used).encode()).hexdigest()[:12] if used else "rule"


def file_name(target: str) -> str:
    """Return the name under which the log of a target is kept."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", target) + ".json"


def save_log(log: TuningLog, folder: Path) -> Path:
    """Write ``log`` into ``folder`` (made if needed), in place of an older one, and return the path."""
    path = folder / file_name(log.target)
    entries = [{**vars(kernel_class), **vars(entry)} for kernel_class, entry in sorted(log.entries.items())]
    text = json.dumps({"format_version": FORMAT_VERSION, "target": log.target, "entries": entries}, indent=1)
    write_text(path, text + "\n")
    return path


def load_log(path: Path) -> TuningLog:
    """Read what ``save_log`` wrote.

    Raises:
        StorageError: The file cannot be read, is no tuning log, is damaged, or of another format version.
    """
    again = f"Delete {path} and tune again: autocompress profile host --engine tvm --tune tiles"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"The tuning log {path} cannot be read: {error}.", right="It is a JSON file.", next_step=again
        ) from None
    found = data.get("format_version") if isinstance(data, dict) else None
    if found != FORMAT_VERSION:
        raise StorageError(
            f"The tuning log {path} has format version {found!r}.",
            right=f"This version of AutoCompress reads format version {FORMAT_VERSION}.",
            next_step=again,
        )
    try:
        return TuningLog(str(data["target"]), dict(_read_entry(**values) for values in data["entries"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"The tuning log {path} is damaged: {type(error).__name__} {error}.",
            right="It holds a tile, its times and where they are from for each kind of product.",
            next_step=again,
        ) from None


def _read_entry(
    *,
    family: str,
    dot: str,
    rows: int,
    depth: int,
    columns: int,
    tile: str,
    microseconds: dict[str, Any],
    kernels: str,
    **rest: Any,
) -> tuple[KernelClass, Entry]:
    for name in (tile, *microseconds):
        tile_of(name, lanes=1)
    times = {name: float(value) for name, value in microseconds.items()}
    kernel_class = KernelClass(str(family), str(dot), int(rows), int(depth), int(columns))
    return kernel_class, Entry(tile, times, kernels=kernels, **rest)


def find_log(target: str, folders: Iterable[Path] | None = None) -> TuningLog:
    """Return the log that is kept for ``target``: of the first folder that has one; an empty one where none has.

    Args:
        target: ``str(Target)``.
        folders: Where to look; by default where data files live.

    Raises:
        StorageError: The log is damaged, or of another target than its name says.
    """
    for folder in data_folders(FOLDER) if folders is None else folders:
        path = folder / file_name(target)
        if path.is_file():
            log = load_log(path)
            if log.target != target:
                raise StorageError(
                    f"The tuning log {path} is of the target {log.target!r}.",
                    right=f"A file of this name holds what was measured on {target!r}.",
                    next_step=f"Delete {path} and tune again.",
                )
            return log
    return TuningLog(target)
