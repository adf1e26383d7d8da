"""What a model reads of a batch, and what is known of it beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from autocompress.feeds import IDS, MASK, Feeds


class ModelBatch(Protocol):
    """What a model reads of a batch."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """Its feeds, by the names of ``feeds``."""

    @property
    def attention_mask(self) -> Tensor:
        """1 for tokens, 0 for padding (examples x tokens), int64; all that an image is cut into are tokens."""


class LabelledBatch(ModelBatch, Protocol):
    """What the losses read of a batch."""

    @property
    def labels(self) -> Tensor:
        """Classes (examples,), int64."""


class TrainingBatch(LabelledBatch, Protocol):
    """A batch of labelled examples that knows which ones they are."""

    @property
    def indices(self) -> Tensor:
        """(examples,) int64, the place of each in the training split."""


@dataclass(frozen=True)
class TokenBatch:
    """Documents, padded to one length; satisfies ``ModelBatch``.

    Attributes:
        input_ids: Token ids (documents x tokens), int64.
        attention_mask: 1 for tokens, 0 for padding (documents x tokens), int64.
    """

    input_ids: Tensor
    attention_mask: Tensor

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """See ``ModelBatch.inputs``."""
        return {IDS: self.input_ids, MASK: self.attention_mask}


def arrays_of(batch: ModelBatch) -> Feeds:
    """Return what a model reads of a batch as arrays, which share the tensors' memory."""
    return {name: tensor.numpy() for name, tensor in batch.inputs.items()}
