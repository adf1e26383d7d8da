"""``autocompress predictor``: the fitted predictors, and how far they can be trusted."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import say, show

app = typer.Typer(no_args_is_help=True)


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


@app.command("learn")
def learn(run_folder: RunFolder) -> None:
    """Add what a finished run measured to the device's predictor, for the runs that follow."""
    from autocompress.pipeline.learning import adopt

    predictor = adopt(run_folder)
    say(f"{predictor.source}; median latency: {predictor.held_out['latency_p50_ms'].mape:.1%} held-out error")
