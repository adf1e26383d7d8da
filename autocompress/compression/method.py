"""What a compression method is, and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autocompress.plan import Step, Suggest
from autocompress.shape import Bits, EmbeddingBits, ModelShape
from autocompress.training.loop import LabelledBatch


class TrainingBatch(LabelledBatch, Protocol):
    """A batch of labelled sequences that knows which ones they are."""

    @property
    def indices(self) -> Tensor:
        """(batch,) int64, the place of each example in the training split."""


@dataclass(frozen=True)
class Space:
    """What a search may choose from.

    Attributes:
        depth: Numbers of layers.
        heads_keep: Shares of each layer's heads, 0 to 1.
        ffn_keep: Shares of each layer's feed-forward neurons, 0 to 1.
        attention_bits, ffn_bits, embedding_bits: Bit widths.
        align: Neurons are kept in multiples of this many, so that no vector lane is left empty.
        vocabulary_keep: Shares of the tokens, 0 to 1.
        embedding_rank: Channels of each token's row that a linear map expands; 0: the whole row.
        distill_steps, learning_rate, seed: The short distillation that every candidate gets.
    """

    depth: tuple[int, ...]
    heads_keep: tuple[float, ...] = (0.5, 0.75, 1.0)
    ffn_keep: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    attention_bits: tuple[Bits, ...] = (32, 8, 4)
    ffn_bits: tuple[Bits, ...] = (32, 8, 4)
    embedding_bits: tuple[EmbeddingBits, ...] = (32, 8, 4)
    align: int = 32
    distill_steps: int = 0
    learning_rate: float = 1e-4
    seed: int = 0
    vocabulary_keep: tuple[float, ...] = (1.0,)
    embedding_rank: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Context:
    """What ``apply`` may use beside the model.

    Attributes:
        batches: ``batches(steps, seed)`` yields that many training batches.
        teacher_logits: Logits (batch x classes) of the teacher for a training batch.
        on_step: Called with (step, steps, loss) while something trains.
        token_order: ``token_order(vocabulary)`` are the ids of the teacher's tokens, the ones to keep longest first; by
            default as they are numbered.
        token_counts: ``token_counts(vocabulary)`` is how often each of the student's tokens occurs in its training
            documents (vocabulary,); by default once.
    """

    batches: Callable[[int, int], Iterable[Any]]
    teacher_logits: Callable[[TrainingBatch], Tensor]
    on_step: Callable[[int, int, float], None] | None = field(default=None, compare=False)
    token_order: Callable[[int], Sequence[int]] = range
    token_counts: Callable[[int], Tensor] = torch.ones


class Method(Protocol):
    """One way to make a model smaller; a module of functions satisfies it."""

    @property
    def STEP(self) -> type[Step]:  # noqa: N802 - a constant of each method's module
        """The method's step class."""

    def suggest(self, trial: Suggest, shape: ModelShape, space: Space) -> Any:
        """Return a step for a model of ``shape``, asking ``trial`` for each choice."""

    def reshape(self, shape: ModelShape, step: Any) -> ModelShape:
        """Return the shape that ``apply`` would leave."""

    def apply(self, model: nn.Module, step: Any, context: Context) -> nn.Module:
        """Change ``model`` in place, truly, and return it."""
