"""What do zero points and larger groups cost and gain? ``python -m benchmarks.weight_grids TEACHERS DATA [--quick]``.

Fine-tuned MiniLM-L6 teachers whose linear weights have 4, 3 or 2 bits, one scale for 32, 64 or 128 input channels,
without and with zero points, rounded to nearest or by OPTQ on 256 training documents; activations 8 bits a token and
group, the token table at 4 bits. Losses are on the test split against the teacher on the same documents, ± over these.
Sizes and times are of artifacts of the same shape with random weights: medians of what one sentence of 64 tokens takes
of the processor, one thread, the grids of a width and engine taking turns. ``--records FILE`` lets it go on where it
stopped.
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
from statistics import median

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
from autocompress.plan import Rounding
from autocompress.shape import WEIGHT_GROUPS, Bits, ModelShape, WeightGroup
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("trec6", "sst2")
WIDTHS: tuple[Bits, ...] = (4, 3, 2)
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "optq")
BATCHES, BATCH = 8, 32
TOKENS, ROUNDS = 64, 40


@dataclass(frozen=True)
class Setting:
    """One way to round one teacher."""

    task: str
    bits: Bits
    rounding: Rounding
    group: WeightGroup
    zero_points: bool


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes:
        setting: How the teacher was rounded.
        lost: Points of accuracy on the test split.
        lost_error: Their standard error over documents.
        nats: Mean KL divergence of its answers there from the teacher's.
        cpu_s: Processor time that rounding took, on one thread.
    """

    setting: Setting
    lost: float
    lost_error: float
    nats: float
    cpu_s: float


def settings(*, quick: bool) -> list[Setting]:
    """Return what is measured, the quick roundings first."""
    tasks, widths, roundings = (TASKS[:1], WIDTHS[-1:], ROUNDINGS[:1]) if quick else (TASKS, WIDTHS, ROUNDINGS)
    ways = product(roundings, tasks, widths, WEIGHT_GROUPS, (False, True))
    return [Setting(task, bits, rounding, group, zeros) for rounding, task, bits, group, zeros in ways]


def step_of(shape: ModelShape, setting: Setting) -> QuantizeStep:
    """Return the step that rounds a teacher of ``shape``."""
    bits = (setting.bits,) * len(shape.layers)
    grid = {"weight_group": setting.group, "zero_points": setting.zero_points}
    return QuantizeStep(*[bits] * 4, 4, rounding=setting.rounding, calibration_batches=BATCHES, **grid)


def scores(tutored: Tutored, wanted: Sequence[Setting]) -> Iterator[Scored]:
    """Round and score one teacher in each of the ``wanted`` ways."""
    floats, labels = logits(tutored.model, tutored.task, "test")
    context = Context(
        lambda count, seed: training_batches(tutored.task, count, batch_size=BATCH, seed=seed), lambda batch: batch
    )
    right = (floats.argmax(1) == labels).double()
    for setting in wanted:
        start_s = time.process_time()
        step = step_of(adapter_of(tutored.model).shape(tutored.model), setting)
        student = apply(copy.deepcopy(tutored.model), step, context).eval()
        cpu_s = round(time.process_time() - start_s, 1)
        found, _ = logits(student, tutored.task, "test")
        lost = 100 * (right - (found.argmax(1) == labels).double())
        error = float(lost.std()) / len(lost) ** 0.5
        yield Scored(setting, float(lost.mean()), error, divergence(floats, found), cpu_s)


def artifacts(shape: ModelShape, *, quick: bool) -> list[dict]:
    """Return size and median milliseconds of each engine, width and grid, and the ratio to the width's usual grid."""
    rows = []
    given = of_text(np.random.default_rng(0).integers(0, shape.vocabulary, (1, TOKENS)))
    for engine, bits in product(BUILDERS, WIDTHS[-1:] if quick else WIDTHS):
        grids = list(product(WEIGHT_GROUPS, (False, True)))
        with tempfile.TemporaryDirectory() as folder:
            runs, sizes = [], []
            for group, zeros in grids:
                student = reshape(shape, step_of(shape, Setting("", bits, "nearest", group, zeros)))
                stem = Path(folder, f"{group}-{zeros}")
                artifact = build(student, random_weights(student), stem, engine=engine, tokens=TOKENS)
                sizes.append(artifact.path.stat().st_size / 1e6)
                runs.append(open_artifact(artifact, threads=1))
            spent = np.empty((6 if quick else ROUNDS, len(grids)))
            for turn, index in np.ndindex(spent.shape):
                start_s = time.thread_time()
                runs[index](given)
                spent[turn, index] = 1e3 * (time.thread_time() - start_s)
        rows += [
            {"engine": engine, "bits": bits, "group": group, "zero_points": zeros, "mb": round(size, 2),
             "ms": round(median(each), 2), "ratio": round(median(each / spent[:, 0]), 3)}
            for (group, zeros), size, each in zip(grids, sizes, spent.T, strict=True)
        ]  # fmt: skip
    return rows


def report(found: Sequence[Scored], built: Sequence[dict]) -> None:
    """Print both tables."""
    print_table(
        ["task, bits, rounding", "group", "zero points", "points lost", "nats x 1000", "CPU seconds"],
        [
            [
                f"{each.setting.task} W{each.setting.bits} {each.setting.rounding}",
                str(each.setting.group),
                "yes" if each.setting.zero_points else "no",
                f"{each.lost:.2f} ± {each.lost_error:.2f}",
                f"{1000 * each.nats:.1f}",
                f"{each.cpu_s:.0f}",
            ]
            for each in found
        ],
    )
    print_table(
        ["engine, bits", "group", "zero points", "MB", "ms", "ratio"],
        [
            [
                f"{row['engine']} W{row['bits']}",
                str(row["group"]),
                "yes" if row["zero_points"] else "no",
                *(f"{row[name]:.2f}" for name in ("mb", "ms", "ratio")),
            ]
            for row in built
        ],
    )


def main() -> None:
    """Round what is not recorded yet, score, time and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 at 2 bits alone, to nearest, few rounds")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Scored, Setting), lambda each: each.setting)
    wanted = settings(quick=arguments.quick)
    with tempfile.TemporaryDirectory() as cache:
        options = {"teachers": arguments.teachers, "data": arguments.data, "cache": Path(cache)}
        for rounding, name in dict.fromkeys((each.rounding, each.task) for each in wanted):
            left = [each for each in wanted if (each.rounding, each.task) == (rounding, name) and not kept.get(each)]
            for each in scores(load(name, **options), left) if left else ():
                kept.add(each)
                if kept.late:
                    break
    built = artifacts(load_shape(arguments.teachers / f"minilm-l6-{TASKS[0]}"), quick=arguments.quick)
    found = kept.found(wanted)
    report(found, built)
    figures = {"rows": [asdict(each) for each in found], "artifacts": built}
    finish("weight_grids", figures, quick=arguments.quick, details={"missing": len(wanted) - len(found)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
