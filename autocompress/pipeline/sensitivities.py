"""How far each choice alone moves a model's answers: measured once, whatever budget and device is asked about later.

The replace-one score of Puzzle (Bercovich et al. 2025), of choices instead of blocks: everything is left as large as
the space has it but for one choice, weights are repaired as candidates' are, nothing is trained. No labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Space
from autocompress.compression.methods import draw
from autocompress.compression.ranking.layer_importance import divergence, logits
from autocompress.devices.paths import cache_folder, write_text
from autocompress.evaluation.task import Task
from autocompress.pipeline.candidates import SHAPELESS, Students, choices
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.teacher import digest
from autocompress.plan import Chosen, CompressionPlan
from autocompress.shape import ModelShape
from autocompress.training.batches import TrainingBatch

DOCUMENTS = 128
"""Validation documents on which choices are measured: a repair fits training documents to the letter."""
BATCH = 32
SHAPED = (*SHAPELESS, "depth_selection")
"""Choices that are not measured: what they do depends on the others most."""


@dataclass(frozen=True)
class Sensitivities:
    """What each choice costs in nats, beside a base.

    Attributes:
        base: The choices that change the start least: the most of everything.
        nats: By parameter and choice, the mean KL(softmax(start) || softmax(student)) less that of the base.
    """

    base: Mapping[str, object]
    nats: Mapping[str, Mapping[object, float]]

    def of(self, params: Mapping[str, object]) -> float:
        """Return the sum over ``params`` of what each costs alone, in nats; what was not measured costs nothing."""
        return sum(self.nats[name][value] for name, value in params.items() if name in self.nats)


def largest(space: Space) -> dict[str, object]:
    """Return the choices of ``space`` that change a model least; of those that change no width, the first."""

    def most(name: str, options: Sequence[object]) -> object:
        if name in SHAPED:
            return options[0]
        for whole in ("all",) if name == "tokens_keep" else (0,) if name == "embedding_rank" else ():
            if whole in options:
                return whole
        return max(options, key=lambda option: float(str(option)))

    return {name: most(name, options) for name, options in choices(space).items()}


def measure(students: Students, space: Space, *, seed: int, progress: Progress = quiet) -> Sensitivities:
    """Return what each choice of ``space`` costs; what was measured before is read from the cache.

    Args:
        students: Made of the start that is asked about.
        space: With what drawing needs (``Students.informed``).
        seed: Of the documents.
        progress: Told of each choice.
    """
    shape, base, options = students.start.shape, largest(space), choices(space)
    singles = [(name, value) for name, values in options.items() if name not in SHAPED for value in values]
    wanted = [(name, value, untrained(space, shape, {**base, name: value})) for name, value in singles]
    found = _Kept(students, seed=seed)
    start = found(untrained(space, shape, base))
    nats: dict[str, dict[object, float]] = {}
    for done, (name, value, plan) in enumerate(wanted):
        progress("sensitivity", done, len(wanted), f"{name} {value}")
        nats.setdefault(name, {})[value] = found(plan) - start
    progress("sensitivity", len(wanted), len(wanted), f"{len(options)} parameters")
    return Sensitivities(base, nats)


def untrained(space: Space, shape: ModelShape, params: Mapping[str, object]) -> CompressionPlan:
    """Return the plan of these choices without its training."""
    plan = draw(Chosen(params), shape, space)
    return CompressionPlan(tuple(step for step in plan.steps if not isinstance(step, DistillStep)))


class _Kept:
    """Divergences of students of one start on the same documents; each is measured once, and kept at once."""

    def __init__(self, students: Students, *, seed: int) -> None:
        self._students, self._seed, task = students, seed, students.start.task
        key = digest(students.start.fingerprint, task.max_tokens, DOCUMENTS, seed, torch.__version__)
        self._path = cache_folder() / "sensitivities" / f"{key}.json"
        self._found: dict[str, float] = {}
        if self._path.is_file():
            self._found = json.loads(self._path.read_text(encoding="utf-8"))
        self._expected: torch.Tensor | None = None

    def __call__(self, plan: CompressionPlan) -> float:
        key = digest(plan.to_json())
        if key not in self._found:
            self._found[key] = self._measured(plan)
            write_text(self._path, json.dumps(self._found))
        return self._found[key]

    def _measured(self, plan: CompressionPlan) -> float:
        if self._expected is None:
            start = self._students.start
            self._expected = logits(start.model, documents(start.task, self._seed))
        student = self._students.make(plan, "sensitivity")
        return divergence(self._expected, logits(student, documents(self._students.task(plan), self._seed)))


def documents(task: Task, seed: int) -> list[TrainingBatch]:
    """Return the same validation documents in the same order, however ``task`` cuts them into tokens."""
    count = len(task.dataset.validation)
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(count)[:DOCUMENTS])
    return [task.gather("validation", chosen[at : at + BATCH]) for at in range(0, len(chosen), BATCH)]
