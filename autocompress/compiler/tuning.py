"""Choose the tile of each kind of matrix product by timing a handful of them on the processor itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from autocompress.compiler.machine import Machine, Tile, tile_rows
from autocompress.compiler.program import Kernel, Program
from autocompress.compiler.tuning_log import TRACED, Entry, KernelClass, Trace, TuningLog, size_class, tvm_version
from autocompress.cost import Failure

CANDIDATES = 6
"""Most tiles that are timed for one class, the rule's among them."""
VECTORS = (1, 2, 3, 4, 6, 8)
"""Widths of panels that are considered."""
FIRST_ROUNDS = 3
NEAR = 1.25
"""How many times the fastest a tile may take in the first rounds to be timed further."""
ROUNDS = 12
MARGIN = 0.02
"""How much faster than the rule's a tile must be to replace it; less is noise, and other tiles mean other code."""


class Sampler(Protocol):
    """Kernels that are ready to run."""

    def __call__(self, order: Sequence[str]) -> Mapping[str, Sequence[float] | Failure]:
        """Run kernels one after another, each for a few milliseconds, as often as its name stands in ``order``.

        Returns:
            For each name how long one run took, in microseconds, at each of its turns; or why it cannot run there.
        """


class Timer(Protocol):
    """The way to a processor: this machine (``LocalTimer``), or a board (``boards.remote_timer``)."""

    def __call__(self, kernels: Mapping[str, Kernel]) -> Sampler:
        """Compile kernels for the processor and get them ready there."""


@dataclass(frozen=True)
class Tuned:
    """How far tuning is.

    Attributes:
        done: Classes timed so far.
        total: Classes to time.
        note: The class just timed and what was found.
        log: With all that was timed so far.
    """

    done: int
    total: int
    note: str
    log: TuningLog


def products(programs: Iterable[Program]) -> dict[KernelClass, Kernel]:
    """Return the classes of the matrix products in ``programs``, with the first kernel of each."""
    found: dict[KernelClass, Kernel] = {}
    for program in programs:
        for kernel in program.names():
            kernel_class = KernelClass.of(kernel)
            if kernel_class is not None:
                found.setdefault(kernel_class, kernel)
    return found


def candidates(kernel: Kernel, machine: Machine) -> tuple[Tile, ...]:
    """Return the tiles worth timing for the class of a product: the machine's rule first, then by what they load.

    A tile of h x v vectors loads h + v values for h * v multiplications, or as many as h + 4 v where weights are
    unpacked. Of each width there are two: the tallest that the registers hold, and the one of which the tiles overlap
    least. A rule that reads ahead is timed without that as well.
    """
    size = dict(kernel.size)
    rows, depth, columns = size["rows"], size_class(size["depth"]), size_class(size["columns"])
    rule = machine.rule(kernel.family, rows, depth, columns)
    lanes, unpacked = rule.lanes, 4 if kernel.family == "gemm_grouped" else 1
    loads: dict[Tile, float] = {}
    for vectors in (count for count in VECTORS if (count - 1) * lanes < columns):
        padded = -(-columns // (vectors * lanes)) * vectors * lanes / columns
        for height in _heights(rows, tallest(kernel, machine, vectors)):
            tile = Tile(height, vectors * lanes, lanes, machine.ahead and rows > height)
            loads[tile] = padded * -(-rows // height) * height / rows * (unpacked / height + 1 / vectors)
    known = {rule, replace(rule, rows=min(rule.rows, rows))}
    others = sorted(loads.keys() - known, key=lambda tile: (loads[tile], tile.rows))
    plain = [replace(rule, ahead=False)] if rule.ahead else []
    return (rule, *plain, *others)[:CANDIDATES]


def tallest(kernel: Kernel, machine: Machine, vectors: int) -> int:
    """Return the most rows of a tile of so many vectors: its sums, a row of weights and an activation in registers.

    Integer sums of a group and 16-bit sums take further registers for the totals to which they are added, and
    unpacking weights takes two.
    """
    each, more = 1, 0
    if kernel.family == "gemm_grouped":
        each, more = 2, 2
    elif kernel.family == "gemm_f16" and machine.half.lanes > machine.lanes:
        each = 3
    return (machine.registers - 1 - more - vectors) // (each * vectors)


def _heights(rows: int, most: int) -> set[int]:
    if most < 1:
        return set()
    least_overlap = min(range(1, min(rows, most) + 1), key=lambda height: (-(-rows // height) * height, -height))
    return {tile_rows(rows, most), least_overlap}


def tune(
    wanted: Mapping[KernelClass, Kernel],
    machine: Machine,
    log: TuningLog,
    timer: Timer,
    told: Callable[[Tuned], None] = lambda _: None,
) -> TuningLog:
    """Time the tiles of every class that ``log`` does not know yet, and return the log with them.

    Args:
        wanted: See ``products``.
        machine: Of the log's target.
        log: What is known; entries by the installed TVM stay as they are, so that measured models stay valid.
        timer: The way to the log's target.
        told: Called when the work begins and after every class: to keep what is known so far, and to say so.
    """
    missing = {kernel_class: kernel for kernel_class, kernel in wanted.items() if log.entry(kernel_class) is None}
    told(Tuned(0, len(missing), "tiles of matrix products", log))
    for index, (kernel_class, kernel) in enumerate(missing.items()):
        entry, note = _timed(kernel_class, kernel, machine, timer)
        log = log if entry is None else log.learnt(kernel_class, entry)
        told(Tuned(index + 1, len(missing), f"{kernel_class}: {note}", log))
    return log


def _timed(kernel_class: KernelClass, kernel: Kernel, machine: Machine, timer: Timer) -> tuple[Entry | None, str]:
    """Return what is known of a class now, and how to say it; nothing is known of one of which no tile runs."""
    size = dict(kernel.size) | {"depth": kernel_class.depth, "columns": kernel_class.columns, "activation": None}
    kernels = {str(tile): Kernel.of(kernel.family, **size | {"tile": tile}) for tile in candidates(kernel, machine)}
    rule = next(iter(kernels))
    sample = timer(kernels)
    times, failed = alternate(sample, list(kernels), FIRST_ROUNDS)
    near = [name for name, time_us in times.items() if name == rule or time_us <= NEAR * min(times.values())]
    more, failed_later = alternate(sample, near) if near else ({}, {})
    failed |= failed_later
    times = {name: time_us for name, time_us in (times | more).items() if name not in failed}
    skipped = "; ".join(f"{name} skipped ({reason})" for name, reason in failed.items())
    if not times:
        return None, skipped
    best = _winner(sample, times, rule)
    known = {name: round(time_us, 3) for name, time_us in times.items()}
    entry = Entry(best, known, tvm_version(), datetime.now(UTC).date().isoformat())
    instead = f" instead of {times[rule]:.0f}" if best != rule and rule in times else ""
    return entry, f"{best}, {times[best]:.0f} us{instead}" + (f"; {skipped}" if skipped else "")


def _winner(sample: Sampler, times: Mapping[str, float], rule: str) -> str:
    """Return the fastest tile; the rule's where it is about as fast."""
    best = min(times, key=times.__getitem__)
    if best == rule or rule not in times:
        return best
    again, _ = alternate(sample, [rule, best])  # The fastest of many owes something to luck: it must win again, alone.
    if again.keys() != {rule, best}:
        return rule
    return best if max(again[best] / again[rule], times[best] / times[rule]) < 1 - MARGIN else rule


def trace(
    programs: Iterable[Program],
    log: TuningLog,
    timer: Timer,
    search: Callable[[Kernel], Trace],
    told: Callable[[Tuned], None] = lambda _: None,
) -> TuningLog:
    """Search a schedule of every f32 product at its own dimensions, and return the log with those that are faster.

    Args:
        programs: Lowered with the tiles of ``log``, which knows all their products.
        log: See ``tune``.
        timer: See ``tune``.
        search: Returns the fastest trace that it finds, for example ``meta_schedule.search_trace``.
        told: See ``tune``.
    """
    kernels = dict.fromkeys(kernel for program in programs for kernel in program.names())
    missing = [kernel for kernel in kernels if kernel.family == "gemm_f32" and log.trace(kernel) is None]
    told(Tuned(0, len(missing), "schedules of f32 products", log))
    for index, kernel in enumerate(missing):
        kernel_class = KernelClass.of(kernel)
        entry = None if kernel_class is None else log.entry(kernel_class)
        if kernel_class is None or entry is None:
            continue
        found = search(kernel)
        sample = timer({"tile": kernel, "trace": Kernel.of(TRACED, **dict(kernel.size), trace=found)})
        turns = [alternate(sample, ["tile", "trace"])[0] for _ in range(2)]
        wins = max(turn["trace"] / turn["tile"] for turn in turns) < 1 - MARGIN
        traces = {**entry.traces, str(kernel): found.steps if wins else ""}
        log = log.learnt(kernel_class, replace(entry, traces=traces, source="metaschedule" if wins else entry.source))
        note = f"{kernel_class}: {turns[1]['trace']:.0f} us, by its tile {turns[1]['tile']:.0f}"
        told(Tuned(index + 1, len(missing), note, log))
    return log


def alternate(sample: Sampler, names: Sequence[str], rounds: int = ROUNDS) -> tuple[dict[str, float], dict[str, str]]:
    """Return the time of each kernel in microseconds, the lower quartile of samples that are taken in turn.

    What disturbs a sample makes it longer, never shorter. Each round begins with another kernel, so that nothing which
    happens at regular times falls on the same one; the first round does not count.

    Returns:
        Times of the kernels that ran, and of the others why they did not.
    """
    count = len(names)
    order = [names[(turn + place) % count] for turn in range(rounds + 1) for place in range(count)]
    times: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, taken in sample(order).items():
        if isinstance(taken, Failure):
            failed[name] = taken.reason
        else:
            times[name] = sorted(taken[1:])[rounds // 4]
    return times, failed
