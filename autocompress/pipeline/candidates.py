"""What a run may choose from, and what comes of a choice: a student, foreseen or made."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil
from typing import TypeVar

from torch import nn

from autocompress.compression.depth import DepthStep, uniform
from autocompress.compression.distillation import DistillStep, TeacherLogits
from autocompress.compression.importance import fisher_scores, order_units
from autocompress.compression.method import Context, Space
from autocompress.compression.methods import apply_plan, draw
from autocompress.compression.quantization import QuantizeStep
from autocompress.config import COVERAGE, RunConfig
from autocompress.evaluation.task import Batch, TextClassification
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.teacher import Teacher, training_batches
from autocompress.pipeline.vocabulary import Vocabularies, token_counts
from autocompress.plan import CompressionPlan
from autocompress.shape import Bits, ModelShape

T = TypeVar("T", bound=bool | int | float | str)

FISHER_BATCHES = 8
KEPT_STUDENTS = 4
"""Distilled students kept in memory: candidates that differ only in bits share one."""


def space_of(config: RunConfig, shape: ModelShape) -> Space:
    """Return the space of a run, with the depths of the teacher where the run names none."""
    layers = len(shape.layers)
    chosen = config.search.space
    return Space(
        depth=chosen.depth or tuple(range(ceil(layers / 3), layers + 1)),
        heads_keep=chosen.heads_keep,
        ffn_keep=chosen.ffn_keep,
        attention_bits=chosen.attention_bits,
        ffn_bits=chosen.ffn_bits,
        embedding_bits=chosen.embedding_bits,
        align=chosen.align,
        vocabulary_keep=chosen.vocabulary_keep,
        embedding_rank=chosen.embedding_rank,
        distill_steps=config.search.distill_steps,
        learning_rate=config.search.learning_rate,
        seed=config.search.seed,
    )


@dataclass(frozen=True)
class Chosen:
    """A trial whose choices are made; satisfies ``plan.Suggest``."""

    params: Mapping[str, object]

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """Return the choice made for ``name``."""
        return choices[choices.index(self.params[name])]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return the choice made for ``name``."""
        return int(str(self.params[name]))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return the choice made for ``name``."""
        return float(str(self.params[name]))


def choices(space: Space) -> dict[str, tuple[object, ...]]:
    """Return the choices of each parameter that the methods ask for."""
    kept = ("vocabulary_keep", "depth", "heads_keep", "ffn_keep", "embedding_rank")
    names = (*kept, "attention_bits", "ffn_bits", "embedding_bits")
    return {name: getattr(space, name) for name in names}


def every_plan(shape: ModelShape, space: Space) -> Iterator[tuple[dict[str, object], CompressionPlan]]:
    """Yield each combination of choices with its plan; the same plan may come up twice."""
    options = choices(space)
    for values in product(*options.values()):
        params = dict(zip(options, values, strict=True))
        yield params, draw(Chosen(params), shape, space)


def anchors(shape: ModelShape, space: Space) -> dict[str, dict[str, object]]:
    """Return the choices that are tried first, by name: the obvious ones, as far as ``space`` holds them."""
    layers = len(shape.layers)

    def params(depth: int, bits: int) -> dict[str, object]:
        widths: dict[str, object] = {"depth": depth, "heads_keep": 1.0, "ffn_keep": 1.0}
        widths |= {"vocabulary_keep": 1.0, "embedding_rank": 0}
        return {**widths, "attention_bits": bits, "ffn_bits": bits, "embedding_bits": bits}

    half = max(1, layers // 2)
    named = {
        "teacher": params(layers, 32),
        "int8 teacher": params(layers, 8),
        "half depth": params(half, 32),
        "half depth, int8": params(half, 8),
    }
    options = choices(space)
    return {
        name: choice
        for name, choice in named.items()
        if all(value in options[parameter] for parameter, value in choice.items())
    }


def alternatives(shape: ModelShape, space: Space) -> dict[str, CompressionPlan]:
    """Return what one would do without a search: rounding alone, and half the layers distilled."""
    layers = len(shape.layers)
    eight: tuple[Bits, ...] = tuple(8 for _ in range(layers))
    half = DepthStep(uniform(layers, max(1, layers // 2)))
    distill = DistillStep(space.distill_steps, space.learning_rate, space.seed)
    return {
        "int8 teacher": CompressionPlan((QuantizeStep(eight, eight, 8),)),
        "half depth": CompressionPlan((half, distill)),
    }


class Students:
    """Makes students of plans: units ordered by importance once, distilled students shared between bit widths."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        batch_size: int,
        seed: int,
        coverage: float = COVERAGE,
        progress: Progress = quiet,
    ) -> None:
        self._teacher, self._progress = teacher, progress
        self._batch_size, self._vocabularies = batch_size, Vocabularies(teacher.model, teacher.task, coverage=coverage)
        self._logits = TeacherLogits(
            teacher.model,
            len(teacher.task.dataset.train),
            teacher.shape.classes,
            read=lambda indices: teacher.task.gather("train", indices),
        )
        scores = fisher_scores(
            teacher.model, training_batches(teacher.task, FISHER_BATCHES, batch_size=batch_size, seed=seed)
        )
        self._ordered = order_units(copy.deepcopy(teacher.model), scores)
        self._distilled: OrderedDict[str, nn.Module] = OrderedDict()

    def task(self, plan: CompressionPlan) -> TextClassification:
        """Return the task as the student of ``plan`` reads it, with its own tokenizer."""
        return self._vocabularies.task(plan)

    def _context(self, plan: CompressionPlan, stage: str) -> Context:
        task = self.task(plan)

        def batches(steps: int, seed: int) -> Iterator[Batch]:
            return training_batches(task, steps, batch_size=self._batch_size, seed=seed)

        def on_step(step: int, total: int, loss: float) -> None:
            self._progress(stage, step, total, f"loss {loss:.3f}")

        counts = partial(token_counts, task)
        return Context(batches, self._logits, on_step, token_order=self._vocabularies.order, token_counts=counts)

    def make(self, plan: CompressionPlan, stage: str = "distill") -> nn.Module:
        """Return the student of ``plan``, in eval mode; the same plan always gives the same student."""
        cut = 1 + max((i for i, step in enumerate(plan.steps) if isinstance(step, DistillStep)), default=-1)
        trained, rest = CompressionPlan(plan.steps[:cut]), CompressionPlan(plan.steps[cut:])
        key, context = json.dumps(trained.to_json()), self._context(plan, stage)
        if key not in self._distilled:
            self._distilled[key] = apply_plan(self._ordered, trained, context)
        self._distilled.move_to_end(key)
        while len(self._distilled) > KEPT_STUDENTS:
            self._distilled.popitem(last=False)
        return apply_plan(self._distilled[key], rest, context)
