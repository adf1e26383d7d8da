"""``autocompress export``: make a package of any candidate of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import progress, say

NAME, HELP = "export", "Refine, export, prove and measure a candidate of a run, and write its package."


def run(
    run_folder: RunFolder,
    pick: Annotated[str, typer.Option(help="best, fastest, smallest or trial:NUMBER.")] = "best",
    to: Annotated[Optional[str], typer.Option(help="Engines, e.g. onnxruntime,tvm; default as the run.")] = None,  # noqa: UP045
    container: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="For another device: so, or tar to link there (autocompress link); default as the run."),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="Of a fleet, the device; default the first.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder of the package; default RUN_FOLDER/PICK.")] = None,  # noqa: UP045
) -> None:
    """See ``HELP``."""
    from autocompress.pipeline.export import export
    from autocompress.report.verdict import verdict_text

    folder = out or run_folder / f"export-{pick.replace(':', '-')}"
    with progress() as report:
        how = {"engines": to, "container": container, "device": device}
        found = export(run_folder, pick=pick, folder=folder, progress=report, **how)
    say(f"\n{verdict_text(found)}\n\nPackage: {folder}")
