"""What does pruning cost before any training? ``python -m benchmarks.pruning TEACHERS DATA [--quick]``.

Heads and feed-forward neurons of fine-tuned MiniLM-L6 teachers are removed by every criterion, at equal
multiply-accumulates of the encoder; then layers, hidden channels, tokens, and ranks of the token table. Nothing is
trained; labels are read by the criteria that need them, of training documents alone. Scores are on the test split; a
loss is held against the teacher on the same documents, and ± is its standard error over these. ``--l2p RESULTS`` adds
what ``benchmarks.l2p`` found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean, median

import torch
from torch import nn

from autocompress.compiler.graph import weight_specs
from autocompress.compression.depth import DepthStep, select
from autocompress.compression.factorize import FactorizeStep
from autocompress.compression.hidden import HiddenStep
from autocompress.compression.ranking.layer_importance import ORDERS
from autocompress.compression.ranking.mask_search import encoder_macs
from autocompress.compression.repair import RepairStep
from autocompress.compression.vocabulary import VocabularyStep, kept_of
from autocompress.evaluation.task import predict_with
from autocompress.evaluation.text_classification import TextClassification
from autocompress.models.load import adapter_of
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.teacher import Teacher
from autocompress.plan import CompressionPlan, LayerSelection, Step
from autocompress.training.batches import arrays_of
from benchmarks.l2p import spread
from benchmarks.pruning_rows import OURS, RECIPES, TOKENS, Pruner
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load

TASKS = ("sst2", "trec6")
SHARES, SMALL_SHARES = (0.7, 0.6), (0.5, 0.4)
"""Of the encoder's multiply-accumulates; the small ones for the last of Kwon's recipes and ours alone."""
SMALL = ("and mask tuning (Kwon 3)", OURS)
SEEDS = (0, 1, 2)
"""Of the calibration documents: all three for our recipe, the first for the others."""
BATCHES = 16
"""Of 32 training documents that criteria see; repairs see half as many."""
SCORED = 400
"""Validation sentences on which a candidate of a search is scored."""
COVERAGE = 0.9
"""Least share of the training documents' tokens that a smaller vocabulary still holds here."""


class Judge:
    """Scores students on the test documents beside their teacher."""

    def __init__(self, tutored: Tutored) -> None:
        self._tutored = tutored
        self._teachers = self._hits(tutored.model, tutored.task)
        self.accuracy = float(self._teachers.mean())

    def loss(self, student: nn.Module, task: TextClassification | None = None) -> tuple[float, float]:
        """Return the loss of accuracy in points and its standard error; ``task`` is as the student reads it."""
        lost = 100 * (self._teachers - self._hits(student, task or self._tutored.task))
        return round(float(lost.mean()), 3), round(float(lost.std()) / len(lost) ** 0.5, 3)

    def _hits(self, model: nn.Module, task: TextClassification) -> torch.Tensor:
        """Return (documents,) 1 where the class is right, in the order of the split."""
        predict, hits = predict_with(model), torch.zeros(len(task.dataset.test))
        for batch in task.batches("test", batch_size=32):
            logits = torch.from_numpy(predict(arrays_of(batch)))
            hits[batch.indices] = (logits.argmax(1) == batch.labels).float()
        return hits


def units(
    judge: Judge, tutored: Tutored, *, names: Sequence[str], seeds: Sequence[int], batches: int
) -> Iterator[dict]:
    """Yield the rows of heads and neurons."""
    for seed in seeds:
        pruner = Pruner(tutored, batches, batches // 2, seed)
        for name in names if seed == seeds[0] else [OURS]:
            for share in (*SHARES, *(SMALL_SHARES if name in SMALL else ())):
                keep = pruner.keep(RECIPES[name], share)
                loss, error = judge.loss(pruner.make(RECIPES[name], keep))
                macs = encoder_macs(pruner.shape, TOKENS, keep) / encoder_macs(pruner.shape, TOKENS)
                yield {"row": name, "share": share, "macs": round(macs, 4), "seed": seed, "loss": loss, "error": error}


class Whole:
    """Students of one teacher that lose layers, channels, tokens, or ranks, as a search makes them."""

    def __init__(self, judge: Judge, tutored: Tutored) -> None:
        shape = adapter_of(tutored.model).shape(tutored.model)
        self._judge, self._teacher = judge, Teacher(tutored.model, shape, tutored.task, tutored.folder, "")
        self._students = Students(self._teacher, batch_size=32, seed=0, coverage=COVERAGE)
        self._shape = shape

    @cached_property
    def _orders(self) -> Mapping[LayerSelection, tuple[int, ...]]:
        batches = self._teacher.task.batches("train", batch_size=32, seed=0, limit=256)
        return {name: order(self._teacher.model, batches) for name, order in ORDERS.items()}

    def rows(self) -> Iterator[dict]:
        """Yield each row: without repair and, where layers or channels went, with it."""
        repair = RepairStep("least_squares", BATCHES // 2, 0)
        layers = len(self._shape.layers)
        for depth in (5, 4, 3):
            for selection in ("uniform", "block_influence", "replace_one"):
                step = DepthStep(select(selection, layers, depth, self._orders))
                yield self._row(f"{depth} layers, {selection}", step)
                yield self._row(f"{depth} layers, {selection}, repaired", step, repair)
        for keep in (288, 192):
            yield self._row(f"{keep} hidden channels", HiddenStep(keep))
            yield self._row(f"{keep} hidden channels, repaired", HiddenStep(keep), repair)
        for share in (0.5, 0.25, 0.125):
            yield self._row(f"{share:.1%} of the vocabulary", VocabularyStep(kept_of(self._shape.vocabulary, share)))
        for rank in (192, 128, 96, 64):
            yield self._row(f"token table of rank {rank}", FactorizeStep(rank))

    def _row(self, name: str, *steps: Step) -> dict:
        plan = CompressionPlan(steps)
        student = self._students.make(plan)
        loss, error = self._judge.loss(student, self._students.task(plan))
        return {"row": name, "loss": loss, "error": error, "megabytes": round(_bytes(student) / 1e6, 2)}


def _bytes(model: nn.Module) -> int:
    return sum(spec.size_bytes for spec in weight_specs(adapter_of(model).shape(model)).values())


def seconds_per_candidate(tutored: Tutored, *, batches: int) -> float:
    """Return the median seconds of slicing, repairing and scoring a candidate on two threads, its orders known."""
    pruner, spent, threads = Pruner(tutored, batches, batches // 2, 0), [], torch.get_num_threads()
    torch.set_num_threads(2)
    for share in (0.72, 0.7, 0.65, 0.6, 0.55, 0.5):  # The first also makes orders and documents.
        keep = pruner.keep(RECIPES[OURS], share)
        start_s = time.perf_counter()
        student = pruner.make(RECIPES[OURS], keep)
        tutored.task.evaluate(predict_with(student), "validation", limit=SCORED)
        spent.append(time.perf_counter() - start_s)
    torch.set_num_threads(threads)
    return round(median(spent[1:]), 2)


def summed(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Return by row and share the loss, in the mean over seeds."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row["row"] for row in rows):
        shares = dict.fromkeys(row["share"] for row in rows if row["row"] == name)
        found[name] = {
            f"{share:g}": round(mean(row["loss"] for row in rows if (row["row"], row["share"]) == (name, share)), 3)
            for share in shares
        }
    return found


def report(tutored: Tutored, *, quick: bool) -> tuple[dict[str, object], dict[str, object]]:
    """Prune one teacher in every way, print, and return headline figures and all rows."""
    judge = Judge(tutored)
    print(f"\n{tutored.name}: the teacher has {judge.accuracy:.2%} on {len(tutored.task.dataset.test)} test documents")
    names = ("magnitude", "Fisher, mask search (Kwon 1)", OURS) if quick else tuple(RECIPES)
    seeds, batches = (SEEDS[:1], 4) if quick else (SEEDS, BATCHES)
    rows = list(units(judge, tutored, names=names, seeds=seeds, batches=batches))
    table = []
    for name in names:
        of_name = [row for row in rows if row["row"] == name]
        cells = {share: [row for row in of_name if row["share"] == share] for share in (*SHARES, *SMALL_SHARES)}
        table.append([name, *(_cell(cell) for cell in cells.values())])
    print_table(["points lost at", *(f"{share:.0%} of MACs" for share in (*SHARES, *SMALL_SHARES))], table)
    whole = [] if quick else list(Whole(judge, tutored).rows())
    if whole:
        print_table(
            ["", "points lost", "MB in f32"],
            [[row["row"], f"{row['loss']:.2f} ± {row['error']:.2f}", f"{row['megabytes']:.1f}"] for row in whole],
        )
    seconds = seconds_per_candidate(tutored, batches=batches)
    print(f"slicing, repairing and scoring a candidate on {SCORED} sentences: {seconds} s on two threads")
    figures = {
        "teacher": round(judge.accuracy, 4),
        "losses": summed(rows),
        "others": {row["row"]: row["loss"] for row in whole},
        "seconds_per_candidate": seconds,
    }
    return figures, {"units": rows, "others": whole}


def _cell(rows: Sequence[dict]) -> str:
    """Write a loss with its standard error over documents or, where there are seeds, over these."""
    if len(rows) > 1:
        return "{:.2f} ± {:.2f} ({} seeds)".format(*spread([row["loss"] for row in rows]), len(rows))
    return f"{rows[0]['loss']:.2f} ± {rows[0]['error']:.2f}" if rows else ""


def main() -> None:
    """Prune, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, three rows, few calibration documents")
    parser.add_argument("--l2p", type=Path, help="also report these results of benchmarks.l2p")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    details: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in TASKS[1:] if arguments.quick else TASKS:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            figures[name], details[name] = report(tutored, quick=arguments.quick)
    if arguments.l2p:
        figures["l2p"] = json.loads(arguments.l2p.read_text())["figures"]["rows"]
    finish("pruning", figures, quick=arguments.quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
