"""Which pruned start is best after a short distillation? ``python -m benchmarks.recovery TEACHERS DATA [--quick]``.

Starts that differ in criterion, in how layers share, and in repair are cut to the same multiply-accumulates of the
encoder, and distilled as a search distils its candidates: the same teacher's logits, order of documents, and steps. A
seed decides that order, dropout, and the calibration documents of criteria and repairs. One seed of every cell is
trained first, then the next; ``--minutes`` ends it between two runs, and the table says how many seeds a cell has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocompress.compression import distillation
from autocompress.compression.depth import uniform
from autocompress.compression.distillation import DistillStep
from autocompress.compression.recipes.teacher import TeacherOutputs
from benchmarks.kept import Kept, add_options, kept_of
from benchmarks.l2p import spread
from benchmarks.pruning_rows import OURS, RECIPES, Pruner, Recipe
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("sst2", "trec6")
CUTS: Mapping[str, tuple[float, int]] = {"40 %": (0.4, 6), "25 %, 3 layers": (0.25, 3)}
"""Share of the encoder's multiply-accumulates that is left, and in how many layers, evenly chosen."""
BASE = "Fisher, equal shares"
STARTS: Mapping[str, Recipe] = {
    BASE: Recipe("fisher"),
    "Fisher, equal shares, least squares": Recipe("fisher", repair="least_squares"),
    "kron_obs, one budget, least squares": RECIPES[OURS],
    "kron_obs, global, least squares": Recipe("kron_obs", "compete apart", "least_squares"),
}
"""A search's default until 2026-11-28; that, repaired; the best without training; the default since, which is near."""
SEEDS = (0, 1, 2)
STEPS, RATE = 100, 1e-4
BATCHES = 8
"""Training batches that criteria see, and repairs: a search's, as are steps and rate."""
BETWEEN = 30
"""Steps after which a model is also scored; the rate goes on falling from there."""


@dataclass(frozen=True)
class Recovered:
    """One pruned model before, while, and after it is distilled.

    Attributes:
        task, cut, start, seed: Which; keys of ``CUTS`` and ``STARTS``.
        after: Steps before each scoring, the last one after all of them.
        hits: At each, 1 or 0 for every test document: whether its class is right.
        nll: At each, the mean negative log likelihood of the test labels, in nats.
    """

    task: str
    cut: str
    start: str
    seed: int
    after: Sequence[int]
    hits: Sequence[str]
    nll: Sequence[float]

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What tells it from other runs."""
        return self.task, self.cut, self.start, self.seed, self.after[-1]

    def right(self, moment: int) -> np.ndarray:
        """Return (documents,) 100 where the class is right, else 0."""
        return 100.0 * (np.frombuffer(self.hits[moment].encode(), np.uint8) == ord("1"))


def score(model: nn.Module, tutored: Tutored) -> tuple[str, float]:
    """Return hits and negative log likelihood on the test split, sorted by length."""
    found, labels = logits(model.eval(), tutored.task, "test")
    hits = "".join(str(int(hit)) for hit in found.argmax(1) == labels)
    return hits, round(float(functional.cross_entropy(found, labels)), 5)


def recover(pruner: Pruner, teacher: TeacherOutputs, *, cut: str, start: str, steps: int) -> Recovered:
    """Prune, repair, distil, and score one model."""
    (share, depth), recipe = CUTS[cut], STARTS[start]
    layers = uniform(len(pruner.shape.layers), depth)
    student = pruner.make(recipe, pruner.keep(recipe, share, layers), layers)
    scores = {0: score(student, pruner.tutored)}

    def on_step(step: int, total: int, loss: float) -> None:
        if step in (BETWEEN, total):
            scores[step] = score(student, pruner.tutored)
            student.train()

    context = replace(pruner.context, teacher=teacher, on_step=on_step)
    distillation.apply(student, DistillStep(steps, RATE, pruner.seed), context)
    hits, nll = zip(*scores.values(), strict=True)
    return Recovered(pruner.tutored.name, cut, start, pruner.seed, tuple(scores), hits, nll)


def runs(
    kept: Kept[tuple, Recovered],
    tasks: Sequence[Tutored],
    *,
    cuts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
) -> Iterator[Recovered]:
    """Yield each run, those that are known as they are: all cells of one seed before the next seed.

    Args:
        kept: By ``Recovered.key``.
        tasks: With their teachers.
        cuts: Keys of ``CUTS``.
        seeds: Of documents, their order, and dropout.
        steps: Of training.
    """

    @lru_cache(maxsize=len(tasks))
    def teacher(task: int) -> TeacherOutputs:
        return TeacherOutputs(tasks[task].model)

    for seed, (index, tutored) in product(seeds, enumerate(tasks)):
        pruner = Pruner(tutored, BATCHES, BATCHES, seed)
        for cut, start in product(cuts, STARTS):
            done = kept.get((tutored.name, cut, start, seed, steps))
            if done:
                yield done
            elif not kept.late:
                yield recover(pruner, teacher(index), cut=cut, start=start, steps=steps)


def gain(runs: Sequence[Recovered], base: Sequence[Recovered], moment: int) -> tuple[float, float, float]:
    """Return points gained over ``base`` at equal seeds: the mean, and its standard errors over seeds and documents.

    The latter is that of each document's mean over seeds, so it holds what these differ by too.
    """
    of_base = {run.seed: run for run in base}
    pairs = [(run, of_base[run.seed]) for run in runs if run.seed in of_base]
    gained = np.array([run.right(moment) - other.right(moment) for run, other in pairs])
    mean, over_seeds = spread([float(row.mean()) for row in gained])
    return mean, over_seeds, round(float(gained.mean(0).std(ddof=1)) / gained.shape[1] ** 0.5, 3)


def report(found: Sequence[Recovered]) -> list[dict[str, Any]]:
    """Print and return a row for each cell: accuracy over seeds, and what is gained over the first start."""
    rows: list[dict[str, Any]] = []
    for task, cut, start in dict.fromkeys((run.task, run.cut, run.start) for run in found):
        cell = [run for run in found if (run.task, run.cut, run.start) == (task, cut, start)]
        base = [run for run in found if (run.task, run.cut, run.start) == (task, cut, BASE)]
        row: dict[str, Any] = {"task": task, "cut": cut, "start": start, "seeds": len(cell)}
        for moment, steps in enumerate(cell[0].after):
            row[f"after {steps}"] = spread([float(run.right(moment).mean()) for run in cell])
            row[f"nll after {steps}"] = spread([run.nll[moment] for run in cell])
            row[f"gain after {steps}"] = gain(cell, base, moment)
        rows.append(row)
    after = found[0].after
    names = ("start", "task", "cut", "seeds")
    print_table(
        [*names, *(f"after {steps}" for steps in after), *(f"gain after {steps}" for steps in after)],
        [
            [
                *(str(row[name]) for name in names),
                *(_cell(row[f"{kind}after {steps}"], row["seeds"]) for kind in ("", "gain ") for steps in after),
            ]
            for row in rows
        ],
    )
    return rows


def _cell(values: Sequence[float], seeds: int) -> str:
    """Write a mean, its standard error where there are seeds to tell, and that over documents in parentheses."""
    mean, over_seeds, *over_documents = values
    of_seeds = [f"± {over_seeds:.2f}"] if seeds > 1 else []
    return " ".join([f"{mean:.2f}", *of_seeds, *(f"({error:.2f})" for error in over_documents)])


def main() -> None:
    """Train what is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 at the deep cut alone, one seed, 20 steps")
    add_options(parser)
    arguments = parser.parse_args()
    tasks, cuts, seeds, steps = TASKS, tuple(CUTS), SEEDS, STEPS
    if arguments.quick:
        tasks, cuts, seeds, steps = tasks[1:], cuts[1:], seeds[:1], 20
    kept = kept_of(arguments, lambda line: Recovered(**line), lambda run: run.key)
    with tempfile.TemporaryDirectory() as cache:
        tutored = [load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache)) for name in tasks]
        teachers = {each.name: score(each.model, each) for each in tutored}
        accuracy = {name: round(hits.count("1") / len(hits), 4) for name, (hits, _) in teachers.items()}
        print(f"accuracy of the teachers: {accuracy}", flush=True)
        made = runs(kept, tutored, cuts=cuts, seeds=seeds, steps=steps)
        found = [kept.add(run) for run in made]
    figures = {"teachers": accuracy, "rows": report(found)}
    details = {"runs": [_brief(run) for run in found], "steps": steps, "rate": RATE, "batches": BATCHES}
    finish("recovery", figures, quick=arguments.quick, details=details)


def _brief(run: Recovered) -> dict[str, object]:
    """Return a run with its accuracies in place of each document's hit."""
    accuracy = [round(float(run.right(moment).mean()) / 100, 5) for moment in range(len(run.after))]
    return {name: value for name, value in asdict(run).items() if name != "hits"} | {"accuracy": accuracy}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
