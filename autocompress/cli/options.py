"""Arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP007, UP045 - typer reads the annotation
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted keys that override the file, e.g. search.trials=200."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder of a run, e.g. runs/quickstart.")]
Engine = Annotated[str, typer.Option(help="onnxruntime or tvm.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the engine.")]
Tokens = Annotated[int, typer.Option(min=1, help="Sequence length.")]
READINGS = "dynamic|static|smoothed|token"
"""``shape.Activations``, spelled out so that help needs no further import."""


GROUPS = "32|64|128"
"""``shape.WeightGroup``, likewise."""


def weight_group(text: str | int) -> int:
    """Read how many input channels share a scale.

    Raises:
        typer.BadParameter: There are no such groups.
    """
    if str(text) not in GROUPS.split("|"):
        raise typer.BadParameter(f"{text!r} is none of {GROUPS.replace('|', ', ')}.")
    return int(text)


def reading(text: str) -> str:
    """Read how activations are read.

    Raises:
        typer.BadParameter: It is no such way.
    """
    if text not in READINGS.split("|"):
        raise typer.BadParameter(f"{text!r} is none of {READINGS.replace('|', ', ')}.")
    return text


def token_share(text: str) -> float | str:
    """Read a share of tokens, or ``all``.

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if text != "all" and not 0 < share <= 1:
        raise typer.BadParameter(f"{text!r} is no share above 0 up to 1, and not all.")
    return text if text == "all" else share
