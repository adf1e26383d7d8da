"""``autocompress check``: is a run feasible, before anything is searched."""

from __future__ import annotations

from autocompress.cli.options import Overrides, RunFile
from autocompress.cli.terminal import progress, say, show

NAME, HELP = "check", "Say what is reachable for a run and whether its budget is feasible; nothing is trained."


def run(run_file: RunFile, overrides: Overrides = None) -> int:
    """See ``HELP``."""
    from autocompress.config import load_config
    from autocompress.errors import InfeasibleError
    from autocompress.pipeline.setting import check
    from autocompress.report.units import TITLES, figure

    with progress() as report:
        found = check(load_config(run_file, overrides or ()), report)
    rows = []
    for reach in found.reaches:
        limit = "no limit" if reach.limit is None else figure(reach.name, reach.limit)
        cells = [figure(reach.name, value) for value in (reach.teacher, reach.least, reach.most)]
        rows.append([TITLES[reach.name], *cells, limit, "yes" if reach.reachable else "NO"])
    show(["figure", "teacher", "least", "most", "limit", "reachable"], rows, title=found.source)
    if found.feasible:
        say(f"Feasible: {found.inside} of {found.candidates} shapes meet every limit.")
        return 0
    names = ", ".join(TITLES[name] for name in found.blocking())
    raise InfeasibleError(
        f"None of {found.candidates} shapes meets the budget; blocked by {names}.",
        right="The least reachable figures are in the table above.",
        next_step="Raise that limit, or widen search.space.",
    )
