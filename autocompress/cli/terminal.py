"""How the command line speaks: errors in three parts, tables, and progress with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from autocompress.pipeline.progress import Progress as Report

QUIET_S = 10.0
"""Seconds between two lines of one stage where the output is no terminal."""


def say(text: str) -> None:
    """Print a line."""
    Console(highlight=False, soft_wrap=True).print(escape(text))


def say_all(parts: Sequence[str | Table]) -> None:
    """Print lines and tables."""
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            Console(highlight=False).print(part)


def complain(wrong: str, right: str, next_step: str) -> None:
    """Print an error's three parts."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]Error:[/] {escape(wrong)}")
    console.print(f"[bold]Right:[/] {escape(right)}")
    console.print(f"[bold]Next:[/]  {escape(next_step)}")


def show(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table; every column but the first is right-aligned."""
    Console(highlight=False).print(table_of(header, rows, title))


def table_of(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """Return a table; every column but the first is right-aligned."""
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def watch(parts: Callable[[], Sequence[str | Table] | None], every_s: float) -> None:
    """Show texts and tables in place, read anew every so many seconds, until there are none or Ctrl-C."""
    with Live(console=Console(highlight=False), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while (found := parts()) is not None:
            live.update(Group(*(escape(part) if isinstance(part, str) else part for part in found)), refresh=True)
            time.sleep(every_s)


@contextmanager
def progress() -> Iterator[Report]:
    """Yield a function that shows each stage: a bar with the time left on a terminal, else a line now and then."""
    if not sys.stdout.isatty():
        yield _lines()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks or (done <= 1 and bars.tasks[tasks[stage]].finished):
                if stage in tasks:
                    bars.remove_task(tasks[stage])
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield report


def _lines() -> Report:
    started = time.monotonic()
    last_stage, last_at = "", 0.0
    begun: dict[str, tuple[float, int]] = {}
    reached: dict[str, int] = {}

    def report(stage: str, done: int, total: int, note: str) -> None:
        nonlocal last_stage, last_at
        now = time.monotonic()
        if done <= reached.get(stage, done):
            begun[stage] = (now, done)  # A stage that starts anew, as the training of each candidate does.
        reached[stage] = done
        if stage == last_stage and done not in (0, total) and now - last_at < QUIET_S:
            return
        last_stage, last_at = stage, now
        since, from_step = begun[stage]
        left = f", {(now - since) / (done - from_step) * (total - done):.0f} s left" if from_step < done < total else ""
        sys.stdout.write(f"[{now - started:6.1f} s] {stage} {done}/{total}{left} {note}\n")
        sys.stdout.flush()

    return report
