"""The door: one file a verb."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from autocompress.cli import (
    check,
    device,
    doctor,
    export,
    finetune,
    link,
    predict,
    predictor,
    profile,
    report,
    search,
    status,
    worker,
)
from autocompress.cli.terminal import complain
from autocompress.errors import AutoCompressError, StorageError

INTERRUPTED = 130
UNEXPECTED = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    0: done. 1: a bug. 2: bad input. 3: infeasible, best effort written. 4: device unreachable. 5: parity failed.
    130: stopped by Ctrl-C.
    """
    # Read when torch starts: threads that spin while they wait crawl where another process has a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    sys.exit(_guarded(lambda: _run([word for word in words if word != "--debug"]), debug=debug))


def _run(words: list[str]) -> int:
    import typer

    app = typer.Typer(
        help="Joint, hardware-aware compression of transformers.", no_args_is_help=True, pretty_exceptions_enable=False
    )
    app.add_typer(device.app, name="device", help="Devices and boards: list, show, detect, serve, add, probe.")
    app.add_typer(predictor.app, name="predictor", help="Fitted predictors: evaluate, learn.")
    for module in (profile, predict, check, finetune, search, worker, status, report, export, link, doctor):
        app.command(module.NAME, help=module.HELP)(module.run)
    app.callback()(_options)
    code = app(args=words, prog_name="autocompress", standalone_mode=False)
    return int(code or 0)


def _options() -> None:
    """Joint, hardware-aware compression of transformers. Add --debug to any command to see where an error arose."""


def _guarded(run: Callable[[], int], *, debug: bool) -> int:
    try:
        code = run()
        if code == INTERRUPTED:  # Typer's answer to Ctrl-C.
            raise KeyboardInterrupt
        return code
    except KeyboardInterrupt:
        complain("Stopped.", "Every finished trial is kept.", "Go on by the same command, with a search by --resume.")
        return INTERRUPTED
    except AutoCompressError as error:
        if debug:
            traceback.print_exc()
        complain(error.wrong, error.right, error.next_step)
        return error.exit_code
    except OSError as error:
        if debug:
            traceback.print_exc()
        complain(
            f"The system refused to read or write a file ({error}).",
            "Files can be read, and the disk has room.",
            "Free space or correct the path, then run the same command, a search with --resume.",
        )
        return StorageError.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            return _misused(error)
        if debug:
            traceback.print_exc()
        complain(
            f"Something went wrong that should not ({type(error).__name__}: {error}).",
            "This is a bug in AutoCompress.",
            "Run the same command with --debug and report what it prints.",
        )
        return UNEXPECTED


def _misused(error: Exception) -> int:
    code = int(getattr(error, "exit_code", 2))
    message = getattr(error, "format_message", lambda: "")()
    if message:
        complain(message, "The command's arguments are shown by --help.", "Correct the command line.")
    return code
