"""``autocompress worker``: help a search, from another process or another machine."""

from __future__ import annotations

import signal
from typing import Annotated, Optional

import typer

from autocompress.cli.terminal import progress, say

NAME, HELP = "worker", "Help a search: try its candidates until none is left. Nothing is exported or measured."
Run = Annotated[
    str, typer.Argument(metavar="RUN_FOLDER|NAME", help="The folder of the run, or with --storage its name.")
]
Storage = Annotated[
    Optional[str],  # noqa: UP007, UP045 - typer reads the annotation
    typer.Option(help="The search.storage of the run, e.g. postgresql://USER@HOST/DATABASE or grpc://HOST:PORT."),
]


def run(run: Run, storage: Storage = None) -> None:
    """See ``HELP``."""
    from autocompress.pipeline.joining import work
    from autocompress.search.records import finalists

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # As those who share out machines ask one to end.
    with progress() as report:
        found = work(run, storage=storage, progress=report)
    best = "".join(f", the best with {record.score:.4f} ({record.label})" for record in finalists(found, 1))
    say(f"Nothing is left to work on: {sum(record.score is not None for record in found)} candidates are scored{best}.")
