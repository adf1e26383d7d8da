"""``autocompress doctor``: does everything that a run needs work here."""

from __future__ import annotations

from autocompress.cli.terminal import show
from autocompress.errors import DeviceError

NAME, HELP = "doctor", "Check packages, engines, compiler, disk and folders; each failure comes with a remedy."


def run() -> None:
    """See ``HELP``."""
    from autocompress.pipeline.doctor import examine

    findings = examine()
    show(
        ["what", "found", "state", "remedy"],
        [
            [finding.what, finding.found, "ok" if finding.ok else "FAILED", "" if finding.ok else finding.remedy]
            for finding in findings
        ],
    )
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise DeviceError(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(finding.what for finding in failed)}.",
            right="All checks pass.",
            next_step=failed[0].remedy,
        )
