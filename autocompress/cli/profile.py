"""``autocompress profile``: measure models of many shapes on this machine and fit a predictor."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from autocompress.cli.options import Engine, Threads, Tokens
from autocompress.cli.terminal import progress, say, show
from autocompress.errors import DeviceError

NAME, HELP = "profile", "Measure this machine around a model and fit its latency, memory and size predictor."


def run(
    device: Annotated[str, typer.Argument(help="Only host can be measured so far.")] = "host",
    model: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="Model to sample around: a folder, hub:NAME or wheel:...; default 6 layers x 384."),
    ] = None,
    engine: Engine = "onnxruntime",
    threads: Threads = 1,
    tokens: Tokens = 64,
    samples: Annotated[int, typer.Option(min=9, help="Shapes to measure.")] = 24,
    bits: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="Measure weights of 16 or 2 bits too; may be given twice. 32, 8 and 4 are always measured."),
    ] = None,
    tune: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(
            help="For the engine tvm, time first what is not in this machine's tuning log: tiles (default; a second or"
            " two for each kind of product), metaschedule (minutes for each size), or off. Builds use what is in the"
            " log in any case."
        ),
    ] = None,
) -> None:
    """See ``HELP``."""
    from autocompress.devices.load import load_profile
    from autocompress.pipeline.calibration import HOST, profile_host, widths
    from autocompress.pipeline.prediction import shape_of

    if device != HOST:
        raise DeviceError(
            f"The device {device!r} cannot be reached.",
            right="This version measures the machine it runs on, which is called host.",
            next_step="Run autocompress profile host on that device.",
        )
    with progress() as report:
        predictor = profile_host(
            load_profile(device),
            shape_of(model),
            engine=engine,
            threads=threads,
            tokens=tokens,
            samples=samples,
            bits=widths(bits or ()),
            tune=tune,
            progress=report,
        )
    rows = [
        [name, f"{error.mape:.1%}", f"{error.worst:.1%}", f"{error.within_10_percent:.0%}"]
        for name, error in predictor.held_out.items()
    ]
    show(["figure", "mean error", "worst", "within 10 %"], rows, title="Held-out samples, each left out of its fit")
    say(predictor.source)
