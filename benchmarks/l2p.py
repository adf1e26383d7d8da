"""Fine-tuning against self-distillation after L2P pruning: ``python -m benchmarks.l2p TEACHERS DATA [--quick]``.

Sander et al. (2025) prune the MLP blocks alone, by the L2 norm of each neuron's weights within its layer, and compare
how the same pruned model recovers: by cross-entropy with labels, or by the KL divergence from the unpruned model's own
probabilities, without any label. Here as there both have the same neurons, steps and order of data; only the loss
differs. Model, tasks, steps and rates are ours: theirs is a decoder of 7 billion parameters.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn
from torch.nn import functional

from autocompress.compression import distillation
from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Context
from autocompress.compression.ranking.importance import l2p
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import RecipeName
from benchmarks.kept import Kept, add_options, kept_of
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("sst2", "trec6")
KEPT = (0.75, 0.5, 0.25)
"""Shares of each MLP's neurons."""
SEEDS = (0, 1, 2)
STEPS, RATE, BATCH = 100, 5e-5, 32
LOSSES: dict[str, RecipeName] = {"fine-tuning": "cross_entropy", "self-distillation": "self_distillation"}
"""What is compared -> recipe."""


@dataclass(frozen=True)
class Trained:
    """One pruned model after its training.

    Attributes:
        task, loss: Which.
        kept: Share of the neurons.
        seed: Of the order of the data and of dropout.
        steps: Of training.
        accuracy: On the test split, 0 to 1.
        nll: Mean negative log likelihood of the test labels, in nats.
    """

    task: str
    loss: str
    kept: float
    seed: int
    steps: int
    accuracy: float
    nll: float


def pruned(model: nn.Module, kept: float) -> nn.Module:
    """Return a copy of ``model`` with the share ``kept`` of each layer's neurons, those of the largest norms."""
    smaller = copy.deepcopy(model)
    adapter = adapter_of(smaller)
    for index, ranking in enumerate(l2p(model, ())):
        order = ranking.neurons.order
        adapter.keep_neurons(smaller, index, order[: round(kept * len(order))])
    return smaller


def outcome(model: nn.Module, tutored: Tutored) -> tuple[float, float]:
    """Return accuracy and negative log likelihood on the test split."""
    found, labels = logits(model.eval(), tutored.task, "test")
    return float((found.argmax(1) == labels).float().mean()), float(functional.cross_entropy(found, labels))


def recover(tutored: Tutored, context: Context, *, kept: float, loss: str, seed: int, steps: int) -> Trained:
    """Prune, train, and score one model."""
    step = DistillStep(steps, RATE, seed, LOSSES[loss])
    student = distillation.apply(pruned(tutored.model, kept), step, context)
    return Trained(tutored.name, loss, kept, seed, steps, *outcome(student, tutored))


def runs(known: Kept[tuple, Trained], tutored: Tutored, *, seeds: Sequence[int], steps: int) -> Iterator[Trained]:
    """Yield each run of a task, those that are ``known`` as they are."""
    task = tutored.task
    context = Context(
        lambda steps, seed: training_batches(task, steps, batch_size=BATCH, seed=seed),
        TeacherOutputs(tutored.model),
    )
    for kept in KEPT:
        for seed in seeds:
            for loss in LOSSES:
                done = known.get((tutored.name, loss, kept, seed, steps))
                if done or not known.late:
                    yield done or recover(tutored, context, kept=kept, loss=loss, seed=seed, steps=steps)


def report(found: Sequence[Trained]) -> list[dict[str, object]]:
    """Print mean and standard error of each cell, and of the difference of the losses over equal seeds."""
    rows = []
    for task in dict.fromkeys(each.task for each in found):
        for kept in KEPT:
            cells = {
                loss: [each for each in found if (each.task, each.kept, each.loss) == (task, kept, loss)]
                for loss in LOSSES
            }
            pairs = list(zip(*(sorted(cell, key=lambda each: each.seed) for cell in cells.values()), strict=True))
            gain = [100 * (second.accuracy - first.accuracy) for first, second in pairs]
            row: dict[str, object] = {"task": task, "kept": kept, "seeds": len(pairs)}
            for loss, cell in cells.items():
                row[loss] = spread([100 * each.accuracy for each in cell])
                row[f"{loss} nll"] = spread([each.nll for each in cell])
            rows.append(row | {"gain of self-distillation": spread(gain)})
    names = [*LOSSES, "gain of self-distillation", *(f"{loss} nll" for loss in LOSSES)]
    print_table(
        ["task", "MLP kept", *names],
        [
            [row["task"], f"{row['kept']:.0%}", *("{:.2f} ± {:.2f}".format(*row[name]) for name in names)]
            for row in rows
        ],
    )
    return rows


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error (0 for a single value)."""
    return round(mean(values), 3), round(stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0, 3)


def main() -> None:
    """Train what is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, one seed, 20 steps")
    add_options(parser)
    arguments = parser.parse_args()
    tasks, seeds, steps = (TASKS[1:], SEEDS[:1], 20) if arguments.quick else (TASKS, SEEDS, STEPS)
    found: list[Trained] = []
    known = kept_of(
        arguments,
        lambda line: Trained(**line),
        lambda each: (each.task, each.loss, each.kept, each.seed, each.steps),
    )
    with tempfile.TemporaryDirectory() as cache:
        for name in tasks:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            accuracy, nll = outcome(tutored.model, tutored)
            print(f"{name}: the unpruned model has {accuracy:.2%}, nll {nll:.3f}", flush=True)
            found += [known.add(each) for each in runs(known, tutored, seeds=seeds, steps=steps)]
    rows = report(found)
    details = {"runs": [asdict(each) for each in found], "steps": steps, "rate": RATE, "batch": BATCH}
    finish("l2p", {"rows": rows}, quick=arguments.quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
