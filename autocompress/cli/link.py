"""``autocompress link``: make a library of what was exported for a device without a cross compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from autocompress.cli.terminal import say

NAME, HELP = "link", "Link a model.tar on the device that it is for; needs a C++ compiler there, not TVM's."


def run(
    bundle: Annotated[Path, typer.Argument(metavar="MODEL.tar", help="What export --container tar wrote.")],
    out: Annotated[Optional[Path], typer.Option(help="The library; default MODEL.so beside it.")] = None,  # noqa: UP045
    linker: Annotated[str, typer.Option(help="Command of the C++ compiler.")] = "g++",
) -> None:
    """See ``HELP``."""
    from autocompress.runtime.link import link

    say(f"Library: {link(bundle, out, linker=linker)}")
