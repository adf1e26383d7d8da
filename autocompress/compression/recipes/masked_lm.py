"""A language head on a classifier's encoder: fitted to text, and held to tokens that it guesses.

Rows are tokens that are to be guessed, picked out of a batch by its labels, so that logits of the whole vocabulary are
computed for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.recipes.features import Feature, observe
from autocompress.compression.recipes.masking import NOT_ASKED, MaskedBatch
from autocompress.errors import UnsupportedError
from autocompress.models.language_head import LanguageHead, token_rows
from autocompress.models.load import adapter_of
from autocompress.training.batches import ModelBatch
from autocompress.training.loop import TrainLog, reading, train


def last_hidden(model: nn.Module, batch: ModelBatch) -> Tensor:
    """Return what the last layer of a classifier hands on (documents x tokens x channels).

    Raises:
        UnsupportedError: The model drops tokens on the way, so that none of their states are left to guess from.
    """
    feature = Feature("hidden", len(adapter_of(model).layers(model)))
    hidden = observe(model, batch, [feature]).features[feature]
    if hidden.shape[:2] != batch.attention_mask.shape:
        raise UnsupportedError(
            f"Of {batch.attention_mask.shape[1]} tokens, {hidden.shape[1]} reach the last layer of this model.",
            right="Every token is guessed from its own last hidden state.",
            next_step="Leave `tokens` out of the plan, or the losses of a language model out of the recipe.",
        )
    return hidden


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return L_mlm: the mean cross entropy, in nats, where a token is to be guessed; 0 where none is.

    Args:
        logits: (rows x vocabulary).
        labels: (rows,) int64, ``NOT_ASKED`` where none is.
    """
    asked = (labels != NOT_ASKED).sum().clamp(min=1)
    return functional.cross_entropy(logits, labels, ignore_index=NOT_ASKED, reduction="sum") / asked


def fit_head(
    head: LanguageHead,
    model: nn.Module,
    batches: Iterable[MaskedBatch],
    *,
    steps: int,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> TrainLog:
    """Fit a head in place to guess the tokens of ``batches``; the encoder of ``model`` stays as it is, in eval mode.

    Args:
        head: Of ``language_head.new_head``, or one read elsewhere.
        model: A classifier of the family.
        batches: At least ``steps``, masked.
        steps: Optimizer steps.
        learning_rate: Peak; the head is small and its decoder fixed, so it may be high.
        seed: Nothing is drawn but what ``train`` draws.
        on_step: Told (step, steps, loss).

    Raises:
        TrainingDivergedError, ConfigError: As ``training.loop.train``.
    """
    rows = token_rows(model).detach()

    def loss(fitted: nn.Module, batch: MaskedBatch) -> Tensor:
        asked = batch.labels != NOT_ASKED
        with torch.no_grad():
            hidden = last_hidden(model, batch)[asked]
        return masked_cross_entropy(fitted(hidden, rows), batch.labels[asked])

    with reading(model):
        return train(head, batches, loss, learning_rate=learning_rate, steps=steps, seed=seed, on_step=on_step)


@torch.no_grad()
def guesses(head: LanguageHead, model: nn.Module, batches: Iterable[MaskedBatch]) -> tuple[float, float]:
    """Return (mean cross entropy in nats, share guessed right) over all tokens that are to be guessed, in eval mode.

    The exponential of the first is the perplexity of masked tokens.
    """
    nats, right, count = 0.0, 0, 0
    with reading(model):
        for batch in batches:
            asked = batch.labels != NOT_ASKED
            logits, labels = head(last_hidden(model, batch)[asked], token_rows(model)), batch.labels[asked]
            nats += functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    return nats / max(count, 1), right / max(count, 1)
