"""What a phase reads, and what student and teacher make of it: answers to documents, or guesses of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autocompress.compression.recipes.features import Feature, Outputs, observe
from autocompress.compression.recipes.masking import NOT_ASKED, MaskedBatch
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.models.language_head import LanguageHead, new_head, token_rows
from autocompress.models.load import adapter_of
from autocompress.training.batches import TrainingBatch
from autocompress.training.device import device_of, full_precision, widened


class Lesson(Protocol):
    """One kind of documents to learn from."""

    @property
    def batches(self) -> Callable[[int, int], Iterable[Any]]:
        """``batches(steps, seed)`` yields that many."""

    def head(self, student: nn.Module) -> nn.Module | None:
        """Return what has to be trained along for the student to answer, and is not delivered."""

    def student(self, model: nn.Module, head: nn.Module | None, batch: Any, features: Sequence[Feature]) -> Outputs:
        """Return what the student makes of a batch, with gradients."""

    def teacher(self, learner: nn.Module | None, batch: Any, features: Sequence[Feature]) -> Outputs:
        """Return what the teacher makes of it, or a copy of it that learns."""

    def labels(self, batch: Any) -> Tensor:
        """Return what would be the right answers."""


@dataclass(frozen=True)
class Answering:
    """Documents of the task; satisfies ``Lesson``.

    Attributes:
        batches: See ``Lesson``.
        outputs: The teacher's.
    """

    batches: Callable[[int, int], Iterable[TrainingBatch]]
    outputs: TeacherOutputs

    def head(self, student: nn.Module) -> None:
        """See ``Lesson.head``: a classifier answers by itself."""

    def student(
        self, model: nn.Module, head: nn.Module | None, batch: TrainingBatch, features: Sequence[Feature]
    ) -> Outputs:
        """See ``Lesson.student``."""
        return observe(model, batch, features)

    def teacher(self, learner: nn.Module | None, batch: TrainingBatch, features: Sequence[Feature]) -> Outputs:
        """See ``Lesson.teacher``."""
        return self.outputs(batch, features) if learner is None else self.outputs.observe(learner, batch, features)

    def labels(self, batch: TrainingBatch) -> Tensor:
        """See ``Lesson.labels``."""
        return batch.labels


@dataclass(frozen=True)
class Guessing:
    """Text some of whose tokens are masked; satisfies ``Lesson``. Answers are logits of tokens, one row a masked one.

    DistilBERT compares at all tokens by default, and at masked ones by an option of its code (``restrict_ce_to_mask``):
    logits of the whole vocabulary cost more than a small encoder itself.

    Attributes:
        batches: See ``Lesson``.
        encoder: The teacher, in eval mode.
        language_head: Of the teacher.
        counts: How often each of the student's tokens occurs in the text (vocabulary,).
        kept: The teacher's ids of the student's tokens (vocabulary,); ``None`` where they are the same.
    """

    batches: Callable[[int, int], Iterable[MaskedBatch]]
    encoder: nn.Module
    language_head: LanguageHead
    counts: Tensor
    kept: Tensor | None = None

    def head(self, student: nn.Module) -> LanguageHead:
        """See ``Lesson.head``: a copy of the teacher's where widths are equal, else a new one."""
        made = new_head(student, generator=torch.Generator().manual_seed(0), counts=self.counts)
        theirs = self.language_head
        if made.dense.weight.shape == theirs.dense.weight.shape:
            bias = theirs.bias if self.kept is None else theirs.bias[self.kept]
            made.load_state_dict(theirs.state_dict() | {"bias": bias})
            made.activation = theirs.activation
        return made

    def student(
        self, model: nn.Module, head: nn.Module | None, batch: MaskedBatch, features: Sequence[Feature]
    ) -> Outputs:
        """See ``Lesson.student``."""
        assert isinstance(head, LanguageHead)
        return _guess(model, head, batch, features, batch.labels != NOT_ASKED)

    @torch.no_grad()
    def teacher(self, learner: nn.Module | None, batch: MaskedBatch, features: Sequence[Feature]) -> Outputs:
        """See ``Lesson.teacher``; a copy that learns is not asked, as its task is another."""
        if self.kept is not None:
            batch = replace(batch, input_ids=self.kept[batch.input_ids])
        device = device_of(self.encoder)
        with full_precision(device):
            head = self.language_head.to(device)
            found = _guess(self.encoder, head, batch, features, batch.labels != NOT_ASKED)
        return found if self.kept is None else replace(found, logits=found.logits[:, self.kept])

    def labels(self, batch: MaskedBatch) -> Tensor:
        """See ``Lesson.labels``."""
        return batch.labels[batch.labels != NOT_ASKED]


def _guess(
    model: nn.Module, head: LanguageHead, batch: MaskedBatch, features: Sequence[Feature], asked: Tensor
) -> Outputs:
    last = Feature("hidden", len(adapter_of(model).layers(model)))
    found = observe(model, batch, [*features, last])
    hidden = found.features[last]
    places = tuple(place.to(hidden.device) for place in asked.nonzero(as_tuple=True))
    return replace(found, logits=widened(head(hidden[places], token_rows(model))))
