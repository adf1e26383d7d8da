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
    from autocompress.report.verdict import fleet_text, verdict_text

    workspace = existing(run_folder)
    report, fleet = workspace.report(), workspace.fleet_report()
    for row in fleet.own[1:] if fleet else ():
        other = workspace.on(row.device)
        write_text(other.page, render(other.report(), fleet))
    write_text(workspace.page, render(report, fleet))
    told = f"{verdict_text(report)}\n{fleet_text(fleet)}" if fleet else verdict_text(report)
    say(f"{told}\n\nReport: {workspace.page}")
