"""Do two profiles of this machine agree, and is a busy neighbour noticed? ``python -m benchmarks.repeatability``.

Two profiles of a few blocks, ``--pause-minutes`` apart, each sample in a fresh process; drifted samples are measured
again, what still drifts is left out. Then a neighbour on the same core is switched on and off at known times.
``--quick`` pauses for half a minute and injects fewer episodes; ``--against RESULTS.json`` takes the first profile of
an earlier run instead of pausing.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Libraries read them when they start.
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TVM_NUM_THREADS"), "1")

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.pipeline.prediction import COMMON
from autocompress.profiling.drift import drifted, reference_ms, remeasure_drifted, slow_episodes, without_waiting
from autocompress.profiling.episodes import describe
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import LayerShape, ModelShape, by_block
from benchmarks.injection import WAYS, Injected, inject, judge
from benchmarks.record import finish, print_table

ENGINE, THREADS, TOKENS = "onnxruntime", 1, 64
GOAL = 0.03
VOCABULARY = 1000
CAP_S = 0.5
BLOCKS: dict[str, LayerShape] = {
    "12 heads, 1536 neurons": LayerShape(12, 32, 1536),
    "7 heads, 1000 neurons": LayerShape(7, 32, 1000),
    "int8": LayerShape(12, 32, 1536, *by_block(8, 8)),
    "int8, 6 heads, 512 neurons": LayerShape(6, 32, 512, *by_block(8, 8)),
    "int8 attention": LayerShape(12, 32, 1536, *by_block(8, 32)),
}
LAYERS = 2
Profile = dict[str, Measurement | Failure]


def build_blocks(folder: Path) -> dict[str, Artifact]:
    """Write a model of ``LAYERS`` equal layers for each of ``BLOCKS``."""
    shapes: dict[str, ModelShape] = {
        name: replace(COMMON, vocabulary=VOCABULARY, layers=(block,) * LAYERS) for name, block in BLOCKS.items()
    }
    return {
        name: build(shape, random_weights(shape), folder / str(position), engine=ENGINE, tokens=TOKENS)
        for position, (name, shape) in enumerate(shapes.items())
    }


def profile(artifacts: Mapping[str, Artifact], rounds: int) -> Profile:
    """Measure blocks in turn, ``rounds`` times, and what drifted once more; names are ``block / round``."""
    runner = LocalRunner("host")

    def measure(name: str) -> Measurement | Failure:
        artifact = artifacts[name.rpartition(" / ")[0]]
        return runner.run(artifact, Timing(threads=THREADS, vocabulary=VOCABULARY, cap_s=CAP_S))

    names = [f"{name} / {number}" for number in range(rounds) for name in artifacts]
    results = {name: measure(name) for name in names}
    return remeasure_drifted(results, measure, at_most=len(names) // 4)


def left_out(first: Profile, second: Profile) -> tuple[set[str], set[str]]:
    """Return the names in each profile that drifted, both held against one baseline: a whole profile may be slow."""
    run = {(number, name): result for number, each in enumerate((first, second)) for name, result in each.items()}
    names = {f"{number} {name}": (number, name) for number, name in run}
    found = [names[each] for each in drifted({each: run[names[each]] for each in names})]
    return {name for number, name in found if number == 0}, {name for number, name in found if number == 1}


def medians(results: Profile, without: set[str] | None = None) -> dict[str, float]:
    """Return the median of each block over its samples, in milliseconds.

    Args:
        results: A profile.
        without: Names that are left out, unless nothing is left of a block; waiting is then taken off the rest. By
            default the samples are taken as they are.

    Raises:
        RuntimeError: A block could not be measured: a benchmark with holes says nothing.
    """
    runs: dict[str, list[tuple[str, Measurement]]] = {}
    for name, result in results.items():
        if isinstance(result, Failure):
            raise RuntimeError(f"{name}: {result.reason}")
        runs.setdefault(name.rpartition(" / ")[0], []).append(
            (name, result if without is None else without_waiting(result))
        )
    kept = {block: [run for name, run in each if name not in (without or ())] for block, each in runs.items()}
    return {
        block: median(run.latency_p50_ms for run in kept[block] or [run for _, run in each])
        for block, each in runs.items()
    }


def steady_blocks(results: Profile, without: set[str]) -> set[str]:
    """Return the blocks that have a measurement which is not left out."""
    return {name.rpartition(" / ")[0] for name in set(results) - without}


def differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return how far the second value of each block is from the first, as a share of it."""
    return {block: second[block] / first[block] - 1 for block in first}


def compare(first: Profile, second: Profile) -> dict[str, object]:
    """Print the table of two profiles and return its figures."""
    out = left_out(first, second)
    raw = differences(medians(first), medians(second))
    before, after = medians(first, out[0]), medians(second, out[1])
    steady = differences(before, after)
    print_table(
        ["block", "first", "second", "differ", "raw"],
        [
            [block, f"{before[block]:.3f} ms", f"{after[block]:.3f} ms", f"{steady[block]:+.1%}", f"{raw[block]:+.1%}"]
            for block in before
        ],
    )
    busy = set(before) - (steady_blocks(first, out[0]) & steady_blocks(second, out[1]))
    if busy:
        print(f"too busy to tell: all measurements of {', '.join(sorted(busy))} drifted in one of the profiles")
    episodes = [[describe(episode) for episode in slow_episodes(each)] for each in (first, second)]
    for number, lines in enumerate(episodes, start=1):
        print("\n".join([f"profile {number}: {len(lines)} episodes left after measuring again", *lines]), flush=True)
    return {
        "difference": round(median(map(abs, steady.values())), 4),
        "worst_difference": round(max(map(abs, steady.values())), 4),
        "raw_difference": round(median(map(abs, raw.values())), 4),
        "agree": None if busy else median(map(abs, steady.values())) <= GOAL,
        "drifted": [len(each) for each in out],
        "samples": len(first),
        "reference_ms": [
            round(median(reference_ms(run) for run in each.values() if isinstance(run, Measurement)), 4)
            for each in (first, second)
        ],
        "episodes": episodes,
    }


def opened(artifact: Artifact) -> Callable[[], object]:
    """Return a call that runs an artifact once, in this process."""
    run = open_artifact(artifact, threads=THREADS)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, TOKENS), dtype=np.int64)
    return lambda: run(of_text(ids))


def report(injected: Injected) -> dict[str, object]:
    """Print what was found of the injected episodes, and return it."""
    found = {way: judge(injected, see) for way, see in WAYS.items()}
    header = list(next(iter(found.values())))
    print_table(["shown to the finder", *header], [[way, *map(str, row.values())] for way, row in found.items()])
    return dict(found)


def main() -> None:
    """Profile twice, inject, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="pause half a minute, 3 rounds, 24 injected episodes")
    parser.add_argument("--pause-minutes", type=float, help="between the two profiles (default: 60, quick: 0.5)")
    parser.add_argument("--against", type=Path, help="results of an earlier run, whose first profile is this one's too")
    arguments = parser.parse_args()
    rounds, episodes = (3, 24) if arguments.quick else (10, 200)
    pause_minutes = arguments.pause_minutes if arguments.pause_minutes is not None else 0.5 if arguments.quick else 60.0
    with tempfile.TemporaryDirectory() as folder:
        artifacts = build_blocks(Path(folder))
        if arguments.against:
            first, pause_minutes = kept(arguments.against)
        else:
            first = profile(artifacts, rounds)
            time.sleep(60 * pause_minutes)
        second = profile(artifacts, rounds)
        agreement = compare(first, second)
        injected = inject({name: opened(artifact) for name, artifact in artifacts.items()}, episodes=episodes)
    figures = {"pause_minutes": pause_minutes, **agreement, "injection": report(injected)}
    finish(
        "repeatability",
        figures,
        quick=arguments.quick,
        details={"profiles": [_plain(first), _plain(second)], "injected": _rows(injected)},
        headline=("difference", "agree"),
    )


def kept(path: Path, clock: Callable[[], float] = time.time) -> tuple[Profile, float]:
    """Return the first profile of an earlier run, and how many minutes have passed since its first sample."""
    values = json.loads(path.read_text())["details"]["profiles"][0]
    first: Profile = {
        name: Measurement(**{**fields, "samples_ms": tuple(fields["samples_ms"])}) for name, fields in values.items()
    }
    began_s = min(float(each.provenance["start_s"]) for each in first.values() if isinstance(each, Measurement))
    return first, round((clock() - began_s) / 60, 1)


def _plain(results: Profile) -> dict[str, object]:
    return {name: result.to_dict() for name, result in results.items() if isinstance(result, Measurement)}


def _rows(injected: Injected) -> list[list[object]]:
    return [
        [round(each.start_s, 4), round(each.latency_ms, 4), each.reference_ms, each.conditions.waited_share, load]
        for each, load in zip(injected.run, injected.loads, strict=True)
    ]


if __name__ == "__main__":
    main()
