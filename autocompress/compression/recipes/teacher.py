"""The teacher as recipes ask it: its answers to training documents and its features, each computed once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from autocompress.compression.recipes.features import Feature, Outputs, observe
from autocompress.compression.recipes.store import OutputStore, Table
from autocompress.feeds import IDS
from autocompress.models.load import adapter_of
from autocompress.training.batches import LabelledBatch, ModelBatch, TokenBatch, TrainingBatch
from autocompress.training.device import device_of, full_precision

Documents: TypeAlias = Sequence[Sequence[int]]
"""Token ids of each training document."""


@dataclass(frozen=True)
class Keeping:
    """Where outputs are kept.

    Attributes:
        store: On disk.
        fingerprint: Of the teacher.
        documents: As the student reads them, whose tokens features are of.
    """

    store: OutputStore
    fingerprint: str
    documents: Documents

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each document."""
        return tuple(len(ids) for ids in self.documents)

    @cached_property
    def digest(self) -> str:
        """Of the documents' tokens."""
        return hashlib.sha256(repr([list(ids) for ids in self.documents]).encode()).hexdigest()


class TeacherOutputs:
    """What a teacher makes of training documents.

    It answers a document as its own tokenizer cuts it. Features are compared token by token, so they are those of the
    student's tokens, which the teacher knows too. Answers are remembered; both are kept on disk if there is a place for
    them: answers as they are, features as float16, which moves them by 5e-4 of their size at most.

    Args:
        model: Put in eval mode.
        read: The batch of these examples as the teacher's tokenizer reads them; by default as the student's does.
        keeping: Where outputs are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        read: Callable[[Tensor], LabelledBatch] | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.model, self._read, self._keeping = model.eval(), read, keeping
        self._translate: Callable[[Tensor], Tensor] | None = None
        self._logits: dict[int, Tensor] = {}
        self._tables: dict[Feature, Table | None] = {}

    def for_tokens(
        self, translate: Callable[[Tensor], Tensor] | None, documents: Documents | None = None
    ) -> TeacherOutputs:
        """Return the same teacher, with what it has answered, for students of other tokens.

        Args:
            translate: The teacher's ids of the student's; ``None``: they are the same.
            documents: As the student reads them, where outputs are kept.
        """
        other = copy.copy(self)
        other._translate, other._tables = translate, {}
        if other._keeping is not None and documents is not None:
            other._keeping = replace(other._keeping, documents=documents)
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
        same: ModelBatch = batch
        if self._translate is not None:
            same = TokenBatch(self._translate(batch.inputs[IDS]), batch.attention_mask)
        return replace(answers, features=observe(model, same, features).features)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch, features: Sequence[Feature] = ()) -> Outputs:
        """Return logits (batch x classes) and features (batch x tokens x channels), computed in full precision.

        Features that are kept are returned as they will be read: a training that is taken up again sees the same.
        """
        places = batch.indices.tolist()
        known = self._known(places, batch.attention_mask.shape[1], features)
        if known is not None:
            return known
        with full_precision(device_of(self.model)):
            found = self.observe(self.model, batch, features)
        found = Outputs(found.logits.cpu(), {feature: values.cpu() for feature, values in found.features.items()})
        self._logits.update(zip(places, found.logits, strict=True))
        return found if self._keeping is None else self._kept(found, places, batch.attention_mask.sum(1).tolist())

    def _kept(self, found: Outputs, places: Sequence[int], lengths: Sequence[int]) -> Outputs:
        """Keep what was computed of documents of these lengths, and return it as it is read from there."""
        if table := self._answers():
            table.write(places, list(found.logits.float().numpy()))
        features = dict(found.features)
        for feature, values in found.features.items():
            if table := self._table(feature):
                halves = values.half()
                table.write(places, [row[:length].numpy() for row, length in zip(halves, lengths, strict=True)])
                features[feature] = halves.float()
        return replace(found, features=features)

    def _known(self, places: Sequence[int], tokens: int, features: Sequence[Feature]) -> Outputs | None:
        """Return what is remembered or kept of documents, features padded with 0; ``None`` if anything is missing."""
        missing = [place for place in places if place not in self._logits]
        if missing:
            answers = self._answers()
            rows = None if answers is None else answers.read(missing)
            if rows is None:
                return None
            self._logits |= {place: torch.from_numpy(row[0].copy()) for place, row in zip(missing, rows, strict=True)}
        kept: dict[Feature, Tensor] = {}
        for feature in features:
            table = self._table(feature)
            rows = None if table is None else table.read(places)
            if rows is None:
                return None
            padded = pad_sequence([torch.from_numpy(row.astype(np.float32)) for row in rows], batch_first=True)
            kept[feature] = nn.functional.pad(padded, (0, 0, 0, tokens - padded.shape[1]))
        return Outputs(torch.stack([self._logits[place] for place in places]), kept)

    def _answers(self) -> Table | None:
        if self._keeping is None:
            return None
        classes = adapter_of(self.model).shape(self.model).classes
        ones = [1] * len(self._keeping.documents)
        return self._keeping.store.table(f"{self._keeping.fingerprint} answers", ones, classes, "float32")

    def _table(self, feature: Feature) -> Table | None:
        if self._keeping is None:
            return None
        if feature not in self._tables:
            keeping, shape = self._keeping, adapter_of(self.model).shape(self.model)
            width = shape.hidden if feature.kind == "hidden" else shape.layers[feature.layer - 1].attention
            content = f"{keeping.fingerprint} {keeping.digest} {feature}"
            self._tables[feature] = keeping.store.table(content, keeping.lengths, width, "float16")
        return self._tables[feature]
