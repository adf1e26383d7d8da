"""``autocompress status``: where a run is, also from another shell."""

from __future__ import annotations

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import say, show

NAME, HELP = "status", "Say how far a run is, what it found so far and how long it may still take."


def run(run_folder: RunFolder) -> None:
    """See ``HELP``."""
    from autocompress.pipeline.status import read_status

    status = read_status(run_folder)
    alive = "running" if status.alive else "finished" if status.finished else "not running: go on with --resume"
    say(f"{run_folder}: {alive}")
    header = ["stage", "done", "took", "left", "last note"]
    show(header, [[s.name, f"{s.done}/{s.total}", s.elapsed, s.left, s.note] for s in status.stages])
    if status.best is not None:
        say(f"Best so far: {status.best.score:.4f} at {status.best.latency_ms:.2f} ms predicted ({status.best.label})")
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items())
    say(f"Candidates: {counts or 'none yet'}")
