"""Read latency records that others measured: a file of comma-separated lines, configuration and latency in each.

The format is that of the latency data sets of HAT (Wang et al. 2020, "HAT: Hardware-Aware Transformers"): a line of
names, then a line for each measured model, in the order measured.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from pathlib import Path

import numpy as np

from autocompress.errors import SourceError
from autocompress.profiling.episodes import Observation, find_episodes, marks
from autocompress.profiling.expectation import expect_ms

LATENCY = "latency_mean"
"""Names that begin so hold milliseconds of one part of the model; a model takes the sum of its parts."""
SPREAD = "latency_std"
"""Names that begin so hold the standard deviation of a part, which is not read."""
_NEXT = "Give a file with a line of names, then one line of numbers for each measured model."


@dataclass(frozen=True)
class Record:
    """One measured model: what it was made of (all > 0), and the milliseconds of each of its parts (all > 0)."""

    configuration: Mapping[str, float]
    parts_ms: Mapping[str, float]

    @property
    def latency_ms(self) -> float:
        """Time of the whole model, in milliseconds."""
        return sum(self.parts_ms.values())


def read_records(path: Path) -> tuple[Record, ...]:
    """Return the records of a file in their order.

    Raises:
        SourceError: The file is absent, has no column of latencies or no line, or a line holds something else than
            positive numbers.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.reader(lines)
            names = [name.strip() for name in next(reader, [])]
            if not any(name.startswith(LATENCY) for name in names):
                raise SourceError(
                    f"{path} has no column whose name begins with {LATENCY!r}.",
                    right=f"Its first line names the columns; it names {', '.join(names) or 'none'}.",
                    next_step=_NEXT,
                )
            records = tuple(_record(path, reader.line_num, names, line) for line in reader if line)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read: {error}.", right="Latency records are a text file.", next_step=_NEXT
        ) from error
    if not records:
        raise SourceError(f"{path} holds no records.", right="Each line is one measured model.", next_step=_NEXT)
    return records


def _record(path: Path, number: int, names: list[str], line: list[str]) -> Record:
    if len(line) != len(names):
        raise SourceError(
            f"Line {number} of {path} has {len(line)} values.",
            right=f"The first line names {len(names)} columns.",
            next_step="Correct or remove the line.",
        )
    read = {name: text for name, text in zip(names, line, strict=True) if not name.startswith(SPREAD)}
    values = {name: _positive(path, number, name, text) for name, text in read.items()}
    return Record(
        configuration={name: value for name, value in values.items() if not name.startswith(LATENCY)},
        parts_ms={name: value for name, value in values.items() if name.startswith(LATENCY)},
    )


def _positive(path: Path, number: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value > 0):
        raise SourceError(
            f"Line {number} of {path} has {name} = {text!r}.",
            right="Configurations and latencies are positive numbers.",
            next_step="Correct or remove the line.",
        )
    return value


def observe(records: tuple[Record, ...]) -> tuple[Observation, ...]:
    """Return records as a run whose samples are held against a robust model of latency on configuration.

    The model is fitted twice, the second time without the episodes that the first one shows. Files of this format hold
    no times: samples start where the latencies before them end, which is earlier than they did.
    """
    clean = np.ones(len(records), dtype=bool)
    first = _observe(records, clean)
    return _observe(records, ~np.array(marks(find_episodes(first), len(records))))


def _observe(records: tuple[Record, ...], clean: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[Observation, ...]:
    configurations = np.array([list(record.configuration.values()) for record in records])
    latencies = [record.latency_ms for record in records]
    expected = expect_ms(configurations, np.array(latencies), clean)
    starts_s = [0.0, *accumulate(latency / 1e3 for latency in latencies)]
    return tuple(
        Observation(start, latency, expected_ms=float(value))
        for start, latency, value in zip(starts_s, latencies, expected, strict=False)
    )
