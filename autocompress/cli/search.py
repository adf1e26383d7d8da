"""``autocompress search``: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from autocompress.cli.options import Overrides, RunFile
from autocompress.cli.terminal import progress, say

NAME, HELP = "search", "Search for the best model inside the budget, export it, prove it and measure it."
EXIT_CODES = {"pass": 0, "estimated": 0, "fail": 3, "infeasible": 3}


def run(
    run_file: RunFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
) -> int:
    """See ``HELP``."""
    from autocompress.config import load_config
    from autocompress.pipeline.run import search
    from autocompress.pipeline.workspace import Workspace
    from autocompress.report.verdict import fleet_text, verdict_text

    config = load_config(run_file, overrides or ())
    with progress() as report:
        found = search(config, resume=resume, progress=report)
    workspace = Workspace.of(config)
    package = workspace.best if EXIT_CODES[found.verdict] == 0 else workspace.closest
    fleet = workspace.fleet_report() if config.fleet else None
    told = f"{verdict_text(found)}\n{fleet_text(fleet)}" if fleet else verdict_text(found)
    say(f"\n{told}\n\nPackage: {package}\nReport:  {workspace.page}")
    return max(EXIT_CODES[row.verdict] for row in fleet.own) if fleet else EXIT_CODES[found.verdict]
