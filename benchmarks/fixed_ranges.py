"""What do fixed ranges cost and gain? ``python -m benchmarks.fixed_ranges TEACHERS DATA [--quick] [--records FILE]``.

Fine-tuned MiniLM-L6 teachers with weights of 8 bits, rounded to nearest, whose activations are quantized over ranges
that are found as the model runs, of a document (dynamic) or of a token and group of channels (token), or that 256
training documents fix: by extremes, percentiles and least squares, without and with smoothed channels (SmoothQuant,
alpha 0.5). Losses are on the test split against the teacher on the
same documents; ± is the standard error over draws of calibration documents. Times are medians of what one sentence
takes of the processor, random weights, one thread, the ways taking turns. ``--records`` lets it go on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import get_args

import numpy as np
import torch

from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.graph import random_weights
from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep, apply, reshape
from autocompress.compression.ranking.layer_importance import divergence
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of, load_shape
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import RangeKind
from autocompress.shape import Activations, ModelShape, by_block
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("trec6", "sst2")
DRAWS = (0, 1, 2)
BATCHES, BATCH = 8, 32
LENGTHS, ROUNDS = (64, 128), 60
FOUND: tuple[Activations, ...] = ("dynamic", "token")
"""Ranges that are found as the model runs."""


@dataclass(frozen=True)
class Setting:
    """One way to read the activations of one teacher, on one draw of calibration documents."""

    task: str
    activations: Activations
    ranges: RangeKind
    draw: int


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes:
        setting: How the teacher was rounded.
        lost: Points of accuracy on the test split.
        nats: Mean KL divergence of its answers there from the teacher's.
        changed: Share of the documents that it answers otherwise (0 to 1).
        cpu_s: Processor time that rounding took, on one thread.
    """

    setting: Setting
    lost: float
    nats: float
    changed: float
    cpu_s: float


def settings(*, quick: bool) -> list[Setting]:
    """Return what is measured, draw by draw; ranges that are found as the model runs read no documents."""
    tasks, draws = (TASKS[:1], DRAWS[:1]) if quick else (TASKS, DRAWS)
    fixed = product(("static", "smoothed"), get_args(RangeKind)[:1] if quick else get_args(RangeKind))
    ways = list(fixed)
    found = [Setting(task, kind, "minmax", 0) for kind in FOUND for task in tasks]
    return found + [Setting(task, *way, draw) for draw in draws for task in tasks for way in ways]


def step_of(shape: ModelShape, setting: Setting) -> QuantizeStep:
    """Return the step that rounds a teacher of ``shape``."""
    eight = (8,) * len(shape.layers)
    return QuantizeStep(
        *by_block(eight, eight),
        8,
        calibration_batches=BATCHES,
        seed=setting.draw,
        activations=setting.activations,
        ranges=setting.ranges,
    )


def scores(tutored: Tutored, wanted: Sequence[Setting]) -> Iterator[Scored]:
    """Round and score one teacher in each of the ``wanted`` ways."""
    floats, labels = logits(tutored.model, tutored.task, "test")
    context = Context(
        lambda count, seed: training_batches(tutored.task, count, batch_size=BATCH, seed=seed), lambda batch: batch
    )
    right = floats.argmax(1) == labels
    for setting in wanted:
        start_s = time.process_time()
        step = step_of(adapter_of(tutored.model).shape(tutored.model), setting)
        student = apply(copy.deepcopy(tutored.model), step, context).eval()
        cpu_s = round(time.process_time() - start_s, 1)
        found, _ = logits(student, tutored.task, "test")
        lost = 100 * float(right.double().mean() - (found.argmax(1) == labels).double().mean())
        changed = float((found.argmax(1) != floats.argmax(1)).double().mean())
        yield Scored(setting, lost, divergence(floats, found), changed, cpu_s)


def times(shape: ModelShape, *, tokens: int, rounds: int) -> list[dict]:
    """Return for each engine and way the median milliseconds of processor time, and their ratio to ``dynamic``."""
    rows = []
    given = of_text(np.random.default_rng(0).integers(0, shape.vocabulary, (1, tokens)))
    with tempfile.TemporaryDirectory() as folder:
        for engine in BUILDERS:
            runs = {}
            for kind in get_args(Activations):
                student = reshape(shape, step_of(shape, Setting("", kind, "minmax", 0)))
                stem = Path(folder, f"{engine}-{kind}")
                artifact = build(student, random_weights(student), stem, engine=engine, tokens=tokens)
                runs[kind] = open_artifact(artifact, threads=1)
            spent: dict[str, list[float]] = {kind: [] for kind in runs}
            for _ in range(rounds):
                for kind, run in runs.items():
                    start_s = time.thread_time()
                    run(given)
                    spent[kind].append(1e3 * (time.thread_time() - start_s))
            rows += [
                {"engine": engine, "tokens": tokens, "activations": kind, "ms": round(median(each), 3),
                 "ratio": round(median(map(float.__truediv__, each, spent["dynamic"])), 3)}
                for kind, each in spent.items()
            ]  # fmt: skip
    return rows


def report(found: Sequence[Scored]) -> list[dict[str, object]]:
    """Print a table, and return its rows, in the mean over draws."""
    rows: list[dict[str, object]] = []
    for task, kind, ranges in dict.fromkeys(
        (each.setting.task, each.setting.activations, each.setting.ranges) for each in found
    ):
        cell = [each for each in found if asdict(each.setting) | {"draw": 0} == asdict(Setting(task, kind, ranges, 0))]
        rows.append(
            {
                "task": task,
                "activations": kind,
                "ranges": ranges,
                "draws": len(cell),
                "lost": spread([each.lost for each in cell]),
                "millinats": spread([1000 * each.nats for each in cell]),
                "changed": mean(each.changed for each in cell),
                "cpu_s": median(each.cpu_s for each in cell),
            }
        )
    print_table(
        ["task", "activations", "draws", "points lost", "nats x 1000", "answers changed", "CPU seconds"],
        [
            [
                str(row["task"]),
                str(row["activations"]) if row["activations"] in FOUND else f"{row['activations']} {row['ranges']}",
                str(row["draws"]),
                "{:.2f} ± {:.2f}".format(*row["lost"]),
                "{:.2f} ± {:.2f}".format(*row["millinats"]),
                f"{row['changed']:.2%}",
                f"{row['cpu_s']:.0f}",
            ]
            for row in rows
        ],
    )
    return rows


def main() -> None:
    """Round what is not recorded yet, score, time and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, extremes alone, one draw, few rounds")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Scored, Setting), lambda each: each.setting)
    wanted = settings(quick=arguments.quick)
    with tempfile.TemporaryDirectory() as cache:
        options = {"teachers": arguments.teachers, "data": arguments.data, "cache": Path(cache)}
        for name in dict.fromkeys(setting.task for setting in wanted):
            left = [setting for setting in wanted if setting.task == name and not kept.get(setting)]
            for each in scores(load(name, **options), left) if left else ():
                kept.add(each)
                if kept.late:
                    break
    shape = load_shape(arguments.teachers / f"minilm-l6-{TASKS[0]}")
    lengths, rounds = (LENGTHS[:1], 10) if arguments.quick else (LENGTHS, ROUNDS)
    timed = [row for tokens in lengths for row in times(shape, tokens=tokens, rounds=rounds)]
    print_table(
        ["engine", "tokens", "activations", "ms", "ratio"],
        [
            [row["engine"], str(row["tokens"]), row["activations"], f"{row['ms']:.2f}", f"{row['ratio']:.3f}"]
            for row in timed
        ],
    )
    scored = kept.found(wanted)
    figures = {"rows": report(scored), "times": timed}
    finish("fixed_ranges", figures, quick=arguments.quick, details={"scores": [asdict(each) for each in scored]})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
