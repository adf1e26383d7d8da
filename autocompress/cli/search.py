"""``autocompress search``: the main job."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

from autocompress.cli.options import Overrides, RunFile
from autocompress.cli.terminal import progress, say

NAME, HELP = "search", "Search for the best model inside the budget, export it, prove it and measure it."
Launch = Annotated[
    Optional[Literal["ray"]],  # noqa: UP007, UP045 - typer reads the annotation
    typer.Option(help="Place workers on a Ray cluster while candidates are tried (autocompress[ray])."),
]
Workers = Annotated[
    Optional[int],  # noqa: UP007, UP045 - typer reads the annotation
    typer.Option(min=1, help="How many; by default as many as search.parallel lets work beside this process."),
]
EXIT_CODES = {"pass": 0, "estimated": 0, "fail": 3, "infeasible": 3}


def run(
    run_file: RunFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    launch: Launch = None,
    workers: Workers = None,
) -> int:
    """See ``HELP``."""
    from autocompress.config import load_config
    from autocompress.errors import ConfigError
    from autocompress.pipeline.launching import alone, on_ray
    from autocompress.pipeline.run import search
    from autocompress.pipeline.workspace import Workspace
    from autocompress.report.verdict import fleet_text, verdict_text

    config = load_config(run_file, overrides or ())
    if workers is not None and launch is None:
        raise ConfigError(
            f"--workers {workers} says how many, and nothing says where.",
            right="--launch ray --workers N places workers; others join by autocompress worker.",
            next_step="Add --launch ray, or leave --workers out.",
        )
    placed = on_ray(workers or max(1, config.search.parallel - 1)) if launch else alone
    with progress() as report:
        found = search(config, resume=resume, progress=report, launch=placed)
    workspace = Workspace.of(config)
    fleet = workspace.fleet_report() if config.fleet else None
    told = f"{verdict_text(found)}\n{fleet_text(fleet)}" if fleet else verdict_text(found)
    say(f"\n{told}\n\nPackage: {workspace.package(found.verdict)}\nReport:  {workspace.page}")
    return max(EXIT_CODES[row.verdict] for row in fleet.own) if fleet else EXIT_CODES[found.verdict]
