"""``autocompress profile``: measure models of many shapes on a device and fit a predictor."""

from __future__ import annotations

from itertools import product, starmap
from typing import TYPE_CHECKING, Annotated, Optional, cast

import typer

from autocompress.cli.options import GROUPS, READINGS, Threads, Tokens, reading, weight_group
from autocompress.cli.terminal import progress, say, show
from autocompress.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from autocompress.devices.profile import DeviceProfile
    from autocompress.shape import Activations

NAME, HELP = "profile", "Measure a device around a model and fit its latency, memory and size predictors."


def run(
    device: Annotated[str, typer.Argument(help="host, or a board that was added.")] = "host",
    model: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="Model to sample around: a folder, hub:NAME or wheel:...; default 6 layers x 384."),
    ] = None,
    engine: Annotated[str, typer.Option(help="onnxruntime, tvm, or both: tvm,onnxruntime.")] = "onnxruntime",
    threads: Threads = 1,
    tokens: Tokens = 64,
    samples: Annotated[
        Optional[int],  # noqa: UP045 - typer reads the annotation
        typer.Option(min=12, help="Shapes to measure; default 24 or, with --minutes, as many as these allow."),
    ] = None,
    minutes: Annotated[
        Optional[float],  # noqa: UP045 - typer reads the annotation
        typer.Option(min=0.1, help="Time for measuring, a fifth of it kept for measuring again what was disturbed."),
    ] = None,
    sustained_minutes: Annotated[
        float, typer.Option(min=0.0, help="Time for which the model then runs without a pause, to see it slow down.")
    ] = 0.0,
    bits: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="Measure weights of 16, 3 or 2 bits too; may be repeated. 32, 8 and 4 are always measured."),
    ] = None,
    head_bits: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation
        typer.Option(help="Measure heads of 16, 8, 4, 3 or 2 bits too; may be repeated. 32 always is."),
    ] = None,
    activations: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads the annotation
        typer.Option(
            parser=reading,
            metavar=READINGS,
            help="Measure these too, at 8 bits; may be repeated. dynamic always is.",
        ),
    ] = None,
    groups: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation
        typer.Option(
            "--weight-group",
            parser=weight_group,
            metavar=GROUPS,
            help="Measure weights in groups of so many input channels too; may be repeated. 32 always is.",
        ),
    ] = None,
    zero_points: Annotated[
        bool, typer.Option("--zero-points", help="Measure groups with zero points too, below 8 bits.")
    ] = False,
    tune: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation
        typer.Option(
            help="For the engine tvm, time first what is not in the device's tuning log: tiles (default; a second or"
            " two for each kind of product), metaschedule (minutes for each size), or off. Builds use what is in the"
            " log in any case."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the samples of a run that was interrupted.")] = False,
) -> None:
    """See ``HELP``."""
    from autocompress.devices.load import load_profile
    from autocompress.pipeline.bench import reach_device, resumable
    from autocompress.pipeline.known import known_bits, widths
    from autocompress.pipeline.prediction import shape_of
    from autocompress.pipeline.profiling import profile_device
    from autocompress.predictors.sampling import Variety
    from autocompress.shape import WeightGrid

    profile, engines, zeros = load_profile(device), _engines(engine), (False, True) if zero_points else (False,)
    _check_added(profile)
    with progress() as report, resumable(), reach_device(profile, engines=engines) as bench:
        predictors = profile_device(
            profile,
            shape_of(model),
            engines=engines,
            threads=threads,
            tokens=tokens,
            samples=samples,
            minutes=minutes,
            sustained_minutes=sustained_minutes,
            # What a search chooses by default: all tokens in the teacher, the first alone after a student's last layer.
            variety=Variety(
                bits=widths(bits or ()),
                tokens_keep=("all", 1.0),
                max_tokens=tokens,
                activations=cast("tuple[Activations, ...]", tuple(dict.fromkeys(("dynamic", *(activations or ()))))),
                grids=tuple(starmap(WeightGrid, product(dict.fromkeys((32, *(groups or ()))), zeros))),
                head_bits=known_bits((32, *(head_bits or ()))),
            ),
            tune=tune,
            bench=bench,
            resume=resume,
            progress=report,
        )
    rows = [
        [engine, name, f"{error.mape:.1%}", f"{error.worst:.1%}", f"{error.within_10_percent:.0%}"]
        for engine, predictor in predictors.items()
        for name, error in predictor.held_out.items()
    ]
    title = "Held-out samples, each left out of its fit"
    show(["engine", "figure", "mean error", "worst", "within 10 %"], rows, title=title)
    for predictor in predictors.values():
        say(predictor.source)


def _engines(text: str) -> tuple[str, ...]:
    """Read engines that commas part.

    Raises:
        ConfigError: One is unknown, or named twice.
    """
    from autocompress.engines import ENGINES

    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) == len(names) and set(names) <= set(ENGINES):
        return names
    raise ConfigError(
        f"--engine is {text!r}.",
        right=f"It is one of {', '.join(ENGINES)}, or several with commas between them, each once.",
        next_step="Correct --engine, for example --engine tvm,onnxruntime.",
    )


def _check_added(profile: DeviceProfile) -> None:
    """Refuse a board of which it is not known how it is reached.

    Raises:
        DeviceError: It was never added.
    """
    from autocompress.pipeline.bench import is_added
    from autocompress.pipeline.known import HOST

    if profile.name != HOST and not is_added(profile):
        raise DeviceError(
            f"How the device {profile.name!r} is reached is not known.",
            right="A board is added before it is measured; the machine that this runs on is called host.",
            next_step=f"Run: autocompress device add {profile.name} --ssh USER@HOST",
        )
