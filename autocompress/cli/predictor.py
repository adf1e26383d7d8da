"""``autocompress predictor``: the fitted predictors, and how far they can be trusted."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from autocompress.cli.terminal import say, show

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _predictor() -> None:
    """Keep ``evaluate`` a verb of its own, though it is the only one."""


@app.command("evaluate")
def evaluate(
    device: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Argument(help="Name of a device profile; default every device that was measured."),
    ] = None,
) -> None:
    """Show how each fitted predictor foresees samples that were left out of its fit."""
    from autocompress.pipeline.known import fitted
    from autocompress.report.units import TITLES

    found = fitted(device)
    for predictor in found:
        rows = [
            [
                TITLES[name],
                figure.family,
                f"{figure.held_out.mape:.1%}",
                f"{figure.held_out.worst:.1%}",
                f"{figure.held_out.within_10_percent:.0%}",
                f"within {figure.intervals.factor - 1:.1%}",
            ]
            for name, figure in predictor.figures.items()
        ]
        header = ["figure", "fit", "mean error", "worst", "within 10 %", "9 of 10 measured"]
        show(header, rows, title=predictor.source)
        said = ("date", "engine_version", "cpu", "episodes", "failures", "conditions")
        say(
            "; ".join(
                f"{key.replace('_', ' ')}: {predictor.provenance[key]}" for key in said if key in predictor.provenance
            )
        )
