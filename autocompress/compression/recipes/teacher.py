"""The teacher as recipes ask it: its answers to training documents, each computed once, and its features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autocompress.compression.recipes.features import Feature, Outputs, observe
from autocompress.training.loop import LabelledBatch, TrainingBatch


@dataclass(frozen=True)
class _Read:
    """A batch with other token ids."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


class TeacherOutputs:
    """What a teacher makes of training documents.

    It answers a document as its own tokenizer cuts it. Features are compared token by token, so they are those of the
    student's tokens, which the teacher knows too.

    Args:
        model: Put in eval mode.
        read: The batch of these examples as the teacher's tokenizer reads them; by default as the student's does.
        translate: The teacher's ids of the student's; by default they are the same.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        read: Callable[[Tensor], LabelledBatch] | None = None,
        translate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self._read, self._translate = model.eval(), read, translate
        self._logits: dict[int, Tensor] = {}

    def for_tokens(self, translate: Callable[[Tensor], Tensor] | None) -> TeacherOutputs:
        """Return the same teacher, with what it has answered, for students of other tokens."""
        other = copy.copy(self)
        other._translate = translate
        return other

    def read(self, batch: TrainingBatch) -> LabelledBatch:
        """Return the documents of a batch as the teacher's tokenizer cuts them."""
        return batch if self._read is None else self._read(batch.indices)

    def observe(self, model: nn.Module, batch: TrainingBatch, features: Sequence[Feature]) -> Outputs:
        """Run ``model``, the teacher or a copy that learns, on a batch, with gradients where they are switched on."""
        if self._read is None and self._translate is None:
            return observe(model, batch, features)
        answers = observe(model, self.read(batch), ())
        if not features:
            return answers
        ids = batch.input_ids if self._translate is None else self._translate(batch.input_ids)
        same = _Read(ids, batch.attention_mask, batch.labels)
        return replace(answers, features=observe(model, same, features).features)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch, features: Sequence[Feature] = ()) -> Outputs:
        """Return logits (batch x classes) and features (batch x tokens x channels), on the batch's device."""
        places = batch.indices.tolist()
        if features or not self._logits.keys() >= set(places):
            found = self.observe(self.model, batch, features)
            for place, logits in zip(places, found.logits, strict=True):
                self._logits[place] = logits
        else:
            found = Outputs(torch.empty(0), {})
        return replace(found, logits=torch.stack([self._logits[place] for place in places]))
