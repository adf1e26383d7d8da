"""When was the device slow on which others measured? ``python -m benchmarks.foreign_records PATH``.

PATH is a file of latency records as HAT publishes them: comma-separated, the configuration and latency of a measured
model in each line, in the order measured. The records hold no reference kernel, so each latency is held against a
robust model of latency on configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import median

from autocompress.errors import SourceError
from autocompress.profiling.episodes import Episode, Observation, describe, find_episodes, marks
from autocompress.profiling.foreign_records import observe, read_records
from benchmarks.record import finish, print_table


def spread(run: Sequence[Observation], keep: Sequence[bool]) -> float:
    """Return the median absolute relative error of the model on the samples that are kept."""
    ratios = [each.latency_ms / (each.expected_ms or each.latency_ms) for each in run]
    return median(abs(log(ratio)) for ratio, kept in zip(ratios, keep, strict=True) if kept)


def rows(episodes: Sequence[Episode]) -> list[list[str]]:
    """Return a table row for each episode."""
    return [
        [
            str(number),
            str(episode.samples[0]),
            str(episode.samples[-1]),
            str(len(episode.samples)),
            f"{100 * episode.slowdown:+.0f} %",
            episode.cause,
        ]
        for number, episode in enumerate(episodes, start=1)
    ]


def main() -> None:
    """Read, find, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the file of records")
    path = parser.parse_args().path
    try:
        run = observe(read_records(path))
    except SourceError as error:
        parser.exit(error.exit_code, f"{error}\n")
    episodes = find_episodes(run)
    clean = [not marked for marked in marks(episodes, len(run))]
    print(f"{path.name}: {len(run)} records, {clean.count(False)} of them in {len(episodes)} episodes")
    print_table(["episode", "from", "to", "records", "slower", "cause"], rows(episodes))
    figures = {
        "file": path.name,
        "records": len(run),
        "marked": clean.count(False),
        "model_error": round(spread(run, clean), 4) if any(clean) else None,
        "episodes": [
            {
                "from": episode.samples[0],
                "to": episode.samples[-1],
                "slowdown": round(episode.slowdown, 3),
                "cause": episode.cause,
                "words": describe(episode),
            }
            for episode in episodes
        ],
    }
    finish("foreign_records", figures, quick=True, details={}, headline=("records", "marked"))


if __name__ == "__main__":
    main()
