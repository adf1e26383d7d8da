"""What every benchmark leaves behind: the machine it ran on, a file of full results, and one line of JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autocompress.devices.load import load_profile
from autocompress.pipeline.workspace import versions

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Return what decides how fast this machine is, with how busy it was over the last 15 minutes."""
    host = load_profile("host")
    return {
        "processor": host.cpu,
        "architecture": host.architecture,
        "cores": host.core_count,
        "ghz": host.frequency_ghz,
        "isa": list(host.isa),
        "ram_bytes": host.ram_bytes,
        "system": platform.system(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def finish(
    name: str,
    figures: Mapping[str, object],
    *,
    quick: bool,
    details: Mapping[str, object],
    headline: Sequence[str] = (),
    folder: Path = RESULTS,
) -> None:
    """Keep all results of a full run as ``<name>-<date>.json``, and print the figures as the last line, in JSON.

    Args:
        name: Of the benchmark.
        figures: What it found; printed and kept.
        quick: Whether it was the short version; no file is kept of that.
        details: Samples and rows; only kept.
        headline: Which of the figures also stand in the line itself.
        folder: Of the file.
    """
    now = datetime.now(UTC)
    line = {
        "benchmark": name,
        "time": now.isoformat(timespec="seconds"),
        "quick": quick,
        **{key: figures[key] for key in headline},
        "figures": dict(figures),
        "machine": machine(),
        "versions": versions(),
    }
    if not quick:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**line, "details": dict(details)}, indent=1)
        (folder / f"{name}-{now.date()}.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps(line), flush=True)


def kept(name: str, figure: str, *, folder: Path = RESULTS) -> object:
    """Return a figure of a benchmark's newest full run; ``None`` where there is none."""
    newest = max(folder.glob(f"{name}-*.json"), default=None)
    return None if newest is None else json.loads(newest.read_text(encoding="utf-8"))["figures"][figure]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns under their names; every column but the first is right-aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *rest = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, *(cell.strip().rjust(len(cell)) for cell in rest)]).rstrip())
    print(flush=True)
