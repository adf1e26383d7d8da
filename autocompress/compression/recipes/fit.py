"""Train a student by a recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.method import Context
from autocompress.compression.recipes.features import Outputs, observe
from autocompress.compression.recipes.integration import integrated
from autocompress.compression.recipes.lessons import Lesson
from autocompress.compression.recipes.losses import soft_targets
from autocompress.compression.recipes.recipe import Phase, Recipe
from autocompress.compression.recipes.terms import TERMS, Pair, Reads, Seen
from autocompress.compression.recipes.widening import widening
from autocompress.models.load import adapter_of
from autocompress.shape import ModelShape
from autocompress.training.batches import TrainingBatch
from autocompress.training.device import full_precision, placed
from autocompress.training.loop import reading, train

OnStep: TypeAlias = Callable[[int, int, float], None]
NOTHING = Outputs(torch.empty(0), {})
"""What came of a model that was not asked."""


class Trainee(nn.Module):
    """What is fitted: a student, what it needs to be compared, and its teacher, if that learns too.

    The teacher comes first: task layers that both share go by its rate. It reads without dropout.

    Args:
        student: Is delivered.
        widen: The map of its hidden channels to the teacher's.
        teacher: A copy of the teacher that learns.
        dropout: Whether the student reads with dropout.
    """

    def __init__(
        self, student: nn.Module, widen: nn.Linear | None, teacher: nn.Module | None, *, dropout: bool = True
    ) -> None:
        super().__init__()
        self.teacher, self.student, self.widen, self._dropout = teacher, student, widen, dropout
        self.head: nn.Module | None = None

    def train(self, mode: bool = True) -> Self:
        """Switch all but the teacher to training, and the student where it reads with dropout."""
        super().train(mode)
        if not self._dropout:
            self.student.eval()
        if self.teacher is not None:
            self.teacher.eval()
        return self


def fit(
    student: nn.Module, recipe: Recipe, context: Context, *, steps: int, learning_rate: float, seed: int
) -> nn.Module:
    """Train ``student`` in place, and return it.

    Losses that compare token by token see all tokens, also in layers that pass on fewer; the others see what is left.

    Args:
        student: A classifier.
        recipe: How.
        context: Its batches, its teacher, and the device, to which both models go meanwhile.
        steps: Of all phases.
        learning_rate: Peak.
        seed: Of batches and dropout.

    Raises:
        TrainingDivergedError: A loss is no number.
        UnsupportedError: A phase reads documents that are not at hand.
    """
    tutor, counts = context.teacher, recipe.steps(steps)
    shape, teacher_shape = (adapter_of(model).shape(model) for model in (student, tutor.model))
    pair = Pair(shape, teacher_shape, recipe.layer_map)
    learner = copy.deepcopy(tutor.model) if recipe.teacher_rate else None
    takes: AbstractContextManager[None] = nullcontext()
    if recipe.integrates:
        first = _first_batch(context, seed)
        takes = integrated(student, learner or tutor.model, (first, tutor.read(first)), shared=learner is not None)
    learners = [] if learner is None else [learner]
    with placed(context.device, student, tutor.model, *learners), takes:
        trainee = Trainee(student, _widening(student, recipe, pair, context, seed), learner, dropout=recipe.dropout)
        for number, (phase, count) in enumerate(zip(recipe.phases, counts, strict=True)):
            if count == 0:
                continue
            lesson = context.lesson(phase.lesson)
            trainee.head = lesson.head(student)
            trainee.to(context.device)
            whole = phase.lesson == "text" or reads_of(phase, pair)
            with _every_token(student, shape) if whole else nullcontext():
                train(
                    trainee,
                    lesson.batches(count, seed + number),
                    phase_loss(phase, recipe, pair, lesson),
                    steps=count,
                    learning_rate=learning_rate,
                    seed=seed,
                    schedule=phase.schedule,
                    rate_of=lambda name: recipe.teacher_rate if name.startswith("teacher.") else 1.0,
                    on_step=_counted(context.on_step, sum(counts[:number]), steps),
                    checkpoint=context.checkpoint,
                    mixed=context.mixed_precision,
                )
    return student


def phase_loss(phase: Phase, recipe: Recipe, pair: Pair, lesson: Lesson) -> Callable[[nn.Module, Any], Tensor]:
    """Return the weighted sum of a phase's losses, and, where the teacher learns, its own."""
    reads = reads_of(phase, pair)
    ours, theirs = ([read[side] for read in reads] for side in (0, 1))
    asks = any(term.loss != "labels" for term in phase.terms)
    weights = {term.loss: term.weight for term in phase.terms}

    def loss(trainee: nn.Module, batch: Any) -> Tensor:
        assert isinstance(trainee, Trainee)
        student = lesson.student(trainee.student, trainee.head, batch, ours)
        learns = trainee.teacher is not None
        teacher = lesson.teacher(trainee.teacher, batch, theirs) if asks or learns else NOTHING
        device = student.logits.device
        mask, labels = (each.to(device) for each in (batch.attention_mask, lesson.labels(batch)))
        widen = trainee.widen or nn.Identity()
        seen = Seen(student, _constant(teacher, device), labels, mask, pair, recipe.temperature, widen)
        with full_precision(device):
            total = torch.stack([term.weight * TERMS[term.loss].compute(seen) for term in phase.terms]).sum()
            if not learns:
                return total
            # Each looks at the other as it is: neither gradient passes through the other's answers.
            learnt = weights.get("labels", 0.0) * functional.cross_entropy(teacher.logits, labels)
            if recipe.two_way:
                looks = soft_targets(teacher.logits, student.logits.detach(), recipe.temperature)
                learnt = learnt + weights.get("logits", 0.0) * looks
            return total + learnt

    return loss


def reads_of(phase: Phase, pair: Pair) -> Reads:
    """Return the features that a phase compares."""
    return [read for term in phase.terms for read in TERMS[term.loss].reads(pair)]


def _constant(outputs: Outputs, device: torch.device) -> Outputs:
    features = {key: value.detach().to(device) for key, value in outputs.features.items()}
    return Outputs(outputs.logits.detach().to(device), features)


def _first_batch(context: Context, seed: int) -> TrainingBatch:
    batch: TrainingBatch = next(iter(context.batches(1, seed)))
    return batch


def _widening(student: nn.Module, recipe: Recipe, pair: Pair, context: Context, seed: int) -> nn.Linear | None:
    """Return the map of hidden channels that the recipe's losses need, if any, fitted to the first batch."""
    if not any(TERMS[loss].widens(pair) for loss in recipe.losses):
        return None
    batch = _first_batch(context, seed)
    pairs = [pair.hidden(layer) for layer in (0, *(layer for layer, _ in pair.layers))]
    with reading(student), _every_token(student, pair.student), torch.no_grad():
        ours = observe(student, batch, [each for each, _ in pairs]).features
    theirs = context.teacher(batch, [each for _, each in pairs]).features
    real = batch.attention_mask.bool()
    rows = [(ours[one][real], theirs[other][real].to(ours[one].device)) for one, other in pairs]
    return widening(*zip(*rows, strict=True), equal=pair.student.hidden == pair.teacher.hidden)


def _counted(on_step: OnStep | None, before: int, steps: int) -> OnStep | None:
    """Return an ``on_step`` that counts the steps of earlier phases too."""
    if on_step is None:
        return None
    return lambda step, _steps, loss: on_step(before + step, steps, loss)


@contextmanager
def _every_token(model: nn.Module, shape: ModelShape) -> Iterator[None]:
    """Let all layers pass on all tokens; afterwards as few as ``shape`` has it."""
    adapter, most = adapter_of(model), [layer.most_tokens for layer in shape.layers]
    if any(most):
        adapter.select_tokens(model, [0] * len(most))
    try:
        yield
    finally:
        if any(most):
            adapter.select_tokens(model, most)
