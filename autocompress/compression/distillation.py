"""Logit distillation: the student learns the teacher's softened class probabilities, and the labels.

Loss = (1 - w) * T^2 * KL(softmax(z_T / T) || softmax(z_S / T)) + w * CE(z_S, y), means over the batch
(Hinton et al. 2015; the temperature squared keeps the gradients' size independent of T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.method import Context, Space, TrainingBatch
from autocompress.plan import Suggest
from autocompress.shape import ModelShape
from autocompress.training.loop import LabelledBatch, train


@dataclass(frozen=True)
class DistillStep:
    """How a student is trained.

    Attributes:
        steps: Optimizer steps; 0 trains nothing.
        learning_rate: Peak, after a linear warm-up.
        seed: Of the order of batches and of dropout.
        temperature: T in the loss (> 0).
        label_weight: w in the loss, 0 to 1.
    """

    method: ClassVar[str] = "distill"
    steps: int
    learning_rate: float
    seed: int
    temperature: float = 2.0
    label_weight: float = 0.3


STEP = DistillStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> DistillStep:
    """Return the space's distillation; it is the same for every candidate, so that candidates compare."""
    return DistillStep(space.distill_steps, space.learning_rate, space.seed)


def reshape(shape: ModelShape, step: DistillStep) -> ModelShape:
    """Return ``shape`` itself: training changes no width."""
    return shape


def apply(model: nn.Module, step: DistillStep, context: Context) -> nn.Module:
    """Train ``model`` on ``step.steps`` batches."""
    if step.steps == 0:
        return model

    def loss(student: nn.Module, batch: TrainingBatch) -> Tensor:
        logits = student(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return distillation_loss(logits, context.teacher_logits(batch), batch.labels, step)

    train(
        model,
        context.batches(step.steps, step.seed),
        loss,
        steps=step.steps,
        learning_rate=step.learning_rate,
        seed=step.seed,
        on_step=context.on_step,
    )
    return model


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, step: DistillStep) -> Tensor:
    """Return the loss of this module for logits (batch x classes) and labels (batch,)."""
    soft = functional.kl_div(
        functional.log_softmax(student / step.temperature, -1),
        functional.log_softmax(teacher / step.temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(student, labels)
    return (1 - step.label_weight) * step.temperature**2 * soft + step.label_weight * hard


class TeacherLogits:
    """The teacher's logits for training examples, each computed once.

    Args:
        teacher: Put in eval mode.
        examples: In the training split.
        classes: Of the teacher.
        read: The batch of these examples as the teacher's tokenizer reads them; by default as the student's does.
    """

    def __init__(
        self,
        teacher: nn.Module,
        examples: int,
        classes: int,
        read: Callable[[Tensor], LabelledBatch] | None = None,
    ) -> None:
        self._teacher, self._read = teacher.eval(), read
        self._logits = torch.full((examples, classes), torch.nan)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> Tensor:
        """Return (batch x classes)."""
        if torch.isnan(self._logits[batch.indices]).any():
            own = batch if self._read is None else self._read(batch.indices)
            output = self._teacher(input_ids=own.input_ids, attention_mask=own.attention_mask)
            self._logits[batch.indices] = output.logits
        return self._logits[batch.indices]
