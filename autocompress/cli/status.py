"""``autocompress status``: where a run is, also from another shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import say_all, table_of, watch

if TYPE_CHECKING:
    from autocompress.pipeline.status import Status

NAME, HELP = "status", "Say how far a run is, what it found so far and how long it may still take."
EVERY_S = 2.0
SHOWN = 8
"""Candidates of the front that are shown, the best ones."""


def run(
    run_folder: RunFolder,
    live: Annotated[
        bool, typer.Option("--watch", help="Go on showing it, every two seconds, while the run lives.")
    ] = False,
) -> None:
    """See ``HELP``."""
    from autocompress.pipeline.status import read_status

    def parts() -> Sequence[str | Table] | None:
        status = read_status(run_folder)
        return _parts(run_folder, status) if status.alive else None

    if live:
        watch(parts, EVERY_S)
    say_all(_parts(run_folder, read_status(run_folder)))


def _parts(run_folder: Path, status: Status) -> list[str | Table]:
    alive = "running" if status.alive else "finished" if status.finished else "not running: go on with --resume"
    stages = [[s.name, f"{s.done}/{s.total}", s.elapsed, s.left, s.note] for s in status.stages]
    found: list[str | Table] = [
        f"{run_folder}: {alive}",
        table_of(["stage", "done", "took", "left", "last note"], stages),
    ]
    if status.best is not None:
        best = status.best
        packed = f", packed in {status.package}" if status.package else ""
        found.append(f"Best so far: {best.score:.4f} at {best.latency_ms:.2f} ms predicted ({best.label}){packed}")
    if len(status.front) > 1:
        rows = [
            [f"{record.score:.4f}", f"{record.latency_ms:.2f} ms", f"#{record.number}", record.label]
            for record in status.front[-SHOWN:][::-1]
        ]
        found.append(table_of(["score", "predicted", "candidate", "shape"], rows, title="Nothing faster is as good"))
    found.append(f"Candidates: {_counted(status.counts) or 'none yet'}")
    if status.at_work:
        found.append(f"In work: {', '.join(f'{count} on {host}' for host, count in status.at_work.items())}")
    if status.failures:
        found.append(f"Failed by {_counted(status.failures)}")
    return found


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
