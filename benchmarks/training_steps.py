"""What do a step of distillation and a checkpoint cost? ``python -m benchmarks.training_steps TEACHERS DATA``.

A fine-tuned MiniLM-L6 and half its layers as the student, batches of 32 documents, one thread. Every way to train takes
steps on the same batches in turn, round by round: on labels alone; on the teacher's logits, and on its logits and the
hidden states of three layers, each while the store is empty and when it holds all that is read. Times are of the
processor, as other work on the machine moves the clock's.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from autocompress.compression.depth import uniform
from autocompress.compression.method import Context
from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.recipe import Phase, Recipe, Term
from autocompress.compression.recipes.store import OutputStore
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.teacher import Keeping, TeacherOutputs
from autocompress.evaluation.text_classification import Batch
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import training_batches
from autocompress.training.checkpoint import Checkpoint, SavedState
from autocompress.training.loop import cross_entropy
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load

TASKS = ("trec6", "sst2")
BATCH_SIZE, STEPS, ROUNDS = 32, 12, 5
STORE_BYTES = 4 * 2**30
LABELS = "labels"
HIDDEN = Recipe((Phase((Term("logits", 0.7), Term("labels", 0.3), Term("hidden"))),))
RECIPES_OF = {LABELS: RECIPES["cross_entropy"], "logits": RECIPES["logits"], "hidden": HIDDEN}


def half(teacher: nn.Module) -> nn.Module:
    """Return a copy of the teacher with every other layer."""
    student, adapter = copy.deepcopy(teacher), adapter_of(teacher)
    depth = len(adapter.layers(student))
    adapter.keep_layers(student, uniform(depth, depth // 2))
    return student


def context_of(tutored: Tutored, folder: Path) -> Context:
    """Return what students learn from, with nothing in memory and what ``folder`` keeps."""
    task = tutored.task
    keeping = Keeping(OutputStore(folder, STORE_BYTES), tutored.name, task.tokens("train"))

    def batches(steps: int, seed: int) -> Iterator[Batch]:
        return training_batches(task, steps, batch_size=BATCH_SIZE, seed=seed)

    return Context(batches=batches, teacher=TeacherOutputs(tutored.model, keeping=keeping))


def step_s(student: nn.Module, recipe: Recipe, context: Context, steps: int) -> float:
    """Return processor seconds a step, without what comes before the first and after the last."""
    ends: list[float] = []
    timed = replace(context, on_step=lambda *_: ends.append(time.process_time()))
    fit(copy.deepcopy(student), recipe, timed, steps=steps + 1, learning_rate=1e-4, seed=0)
    return (ends[-1] - ends[0]) / steps


def costs(tutored: Tutored, *, steps: int, rounds: int) -> dict[str, Any]:
    """Measure all ways in turn; seconds are medians of rounds, ratios those of rounds too."""
    student, found, taken = half(tutored.model), {}, {}
    for _ in range(rounds):
        for name, recipe in RECIPES_OF.items():
            with tempfile.TemporaryDirectory() as folder:
                for state in ("",) if name == LABELS else (", empty", ", filled"):
                    seconds = step_s(student, recipe, context_of(tutored, Path(folder)), steps)
                    found.setdefault(name + state, []).append(seconds)
                taken[name] = sum(path.stat().st_blocks * 512 for path in Path(folder).glob("*.rows"))
    documents = (steps + 1) * BATCH_SIZE
    return {
        "step_s": {name: median(times) for name, times in found.items()},
        "over_labels": {
            name: median(time / base for time, base in zip(times, found[LABELS], strict=True))
            for name, times in found.items()
        },
        "bytes_a_document": {name: taken[name] / documents for name in taken if name != LABELS},
        "rounds": found,
    }


def checkpoint_cost(tutored: Tutored, *, rounds: int) -> dict[str, float]:
    """Return what it takes to name, write and read a checkpoint of the teacher's own training."""
    model = copy.deepcopy(tutored.model)
    batch = tutored.task.batches("train", batch_size=BATCH_SIZE, seed=0)[0]
    seconds: dict[str, list[float]] = {"name": [], "write": [], "read": []}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder), 0.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        cross_entropy(model, batch).backward()
        optimizer.step()
        for _ in range(rounds):
            marks = [time.monotonic()]
            saved = SavedState(checkpoint, model, optimizer, "settings")
            marks.append(time.monotonic())
            saved.write([0.0], ended=False)
            marks.append(time.monotonic())
            assert saved.resume(iter([batch]), 2) == [0.0]
            marks.append(time.monotonic())
            for name, start, end in zip(seconds, marks, marks[1:], strict=False):
                seconds[name].append(end - start)
        (path,) = Path(folder).iterdir()
        return {f"{name}_s": median(times) for name, times in seconds.items()} | {"bytes": path.stat().st_size}


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6, 3 steps, one round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"steps": 3, "rounds": 1} if arguments.quick else {"steps": STEPS, "rounds": ROUNDS}
    figures: dict[str, object] = {}
    details: dict[str, object] = {"sizes": sizes}
    with tempfile.TemporaryDirectory() as cache:
        tutored = None
        for name in TASKS[:1] if arguments.quick else TASKS:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            figures[name] = found = costs(tutored, **sizes)
            details[name] = found.pop("rounds")
            ratios = found["over_labels"]
            ways = {way: (f"{1e3 * seconds:.0f}", f"{ratios[way]:.2f}") for way, seconds in found["step_s"].items()}
            print_table([name, "ms a step", "over labels"], [[way, *cells] for way, cells in ways.items()])
        figures["checkpoint"] = checkpoint_cost(tutored, rounds=sizes["rounds"])
    finish("training_steps", figures, quick=arguments.quick, details=details)


if __name__ == "__main__":
    main()
