"""``autocompress predictor``: the fitted predictors, and how far they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import progress, say, show
from autocompress.errors import ConfigError

if TYPE_CHECKING:
    from autocompress.predictors.predictor import FittedPredictor

app = typer.Typer(no_args_is_help=True)


@app.command("evaluate")
def evaluate(
    device: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Argument(help="Name of a device profile; default every device that was measured."),
    ] = None,
    fresh: Annotated[
        int, typer.Option(min=0, help="Also measure so many new models on the device, and compare. Needs DEVICE.")
    ] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Add the new models to the device's predictor.")] = False,
) -> None:
    """Show how each fitted predictor foresees samples that were left out of its fit, or new ones measured now."""
    from autocompress.pipeline.known import fitted
    from autocompress.report.units import TITLES

    if fresh and device is None:
        raise ConfigError(
            "Fresh models are asked for, but not on which device.",
            right="One device is named: this machine is host.",
            next_step=f"Run: autocompress predictor evaluate host --fresh {fresh}",
        )
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

    for predictor in found if fresh else ():
        _check(predictor, fresh, keep=keep)


def _check(predictor: FittedPredictor, count: int, *, keep: bool) -> None:
    """Measure new models, and show each beside what was foreseen."""
    from autocompress.devices.load import load_profile
    from autocompress.pipeline.bench import reach_device
    from autocompress.pipeline.fresh import check_fresh
    from autocompress.report.units import figure, interval

    profile = load_profile(predictor.device)
    with progress() as report, reach_device(profile) as bench:
        check = check_fresh(predictor, profile, count=count, keep=keep, bench=bench, progress=report)
    rows = [
        [
            model.shape.describe(),
            interval("latency_p50_ms", model.foreseen.latency_p50_ms),
            figure("latency_p50_ms", model.latency_ms),
            f"{error:.1%}",
        ]
        for model, error in zip(check.models, check.errors, strict=True)
    ]
    show(["model", "foreseen", "measured", "error"], rows, title=f"{predictor.source}: models measured now")
    errors = check.errors
    say(
        f"Mean error {errors.mean():.1%}, worst {errors.max():.1%}; {sum(errors <= 0.1)} of {len(errors)} within 10 %;"
        f" {check.held} inside their 90 % interval; rank correlation {check.rank_correlation:.3f}."
    )
    say(
        f"Two measurements of one model lie {check.floor:.1%} apart in the mean: no prediction can be nearer than that."
    )
    if check.failures:
        say("Not measured: " + ", ".join(f"{reason} {number}" for reason, number in check.failures.items()))
    if keep:
        say("The predictor was fitted again with these models among its samples.")


@app.command("learn")
def learn(run_folder: RunFolder) -> None:
    """Add what a finished run measured to the device's predictor, for the runs that follow."""
    from autocompress.pipeline.learning import adopt

    for predictor in adopt(run_folder):
        say(f"{predictor.source}; median latency: {predictor.held_out['latency_p50_ms'].mape:.1%} held-out error")
