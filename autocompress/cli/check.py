"""``autocompress check``: is a run feasible, before anything is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autocompress.cli.options import Overrides, RunFile
from autocompress.cli.terminal import progress, say, show

if TYPE_CHECKING:
    from autocompress.pipeline.feasibility import Feasibility

NAME, HELP = "check", "Say what is reachable for a run and whether its budget is feasible; nothing is trained."


def run(run_file: RunFile, overrides: Overrides = None) -> int:
    """See ``HELP``."""
    from autocompress.config import load_config
    from autocompress.errors import InfeasibleError
    from autocompress.pipeline.feasibility import fitting
    from autocompress.pipeline.setting import check_fleet
    from autocompress.report.units import TITLES

    with progress() as report:
        found = check_fleet(load_config(run_file, overrides or ()), report)
    for name, reach in found.items():
        _show(reach, f"{name}: {reach.source}" if len(found) > 1 else reach.source)
    blocked = [
        f"{f'on {name} ' if len(found) > 1 else ''}blocked by {', '.join(TITLES[limit] for limit in reach.blocking())}"
        for name, reach in found.items()
        if not reach.feasible
    ]
    if len(blocked) < len(found):
        say(f"Feasible: {fitting(found)} meet every limit{''.join(f'; {words}' for words in blocked)}.")
        return 0
    shapes = next(iter(found.values())).candidates
    raise InfeasibleError(
        f"None of {shapes} shapes meets the budget; {'; '.join(blocked)}.",
        right="The least reachable figures are in the table above.",
        next_step="Raise that limit, or widen search.space.",
    )


def _show(found: Feasibility, title: str) -> None:
    from autocompress.report.units import TITLES, figure

    rows = []
    for reach in found.reaches:
        limit = "no limit" if reach.limit is None else figure(reach.name, reach.limit)
        cells = [figure(reach.name, value) for value in (reach.teacher, reach.least, reach.most)]
        rows.append([TITLES[reach.name], *cells, limit, "yes" if reach.reachable else "NO"])
    show(["figure", "teacher", "least", "most", "limit", "reachable"], rows, title=title)
