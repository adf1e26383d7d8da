"""``autocompress report``: write the report of a finished run again."""

from __future__ import annotations

from autocompress.cli.options import RunFolder
from autocompress.cli.terminal import say

NAME, HELP = "report", "Print the verdict of a finished run and write its HTML report again."


def run(run_folder: RunFolder) -> None:
    """See ``HELP``."""
    from autocompress.devices.paths import write_text
    from autocompress.pipeline.workspace import existing
    from autocompress.report.page import render
    from autocompress.report.verdict import verdict_text

    workspace = existing(run_folder)
    report = workspace.report()
    write_text(workspace.page, render(report))
    say(f"{verdict_text(report)}\n\nReport: {workspace.page}")
