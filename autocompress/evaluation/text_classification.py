"""Text classification: documents as padded token batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.datasets import SPLITS, Dataset, Split
from autocompress.evaluation.sampling import stratified_order
from autocompress.evaluation.task import (
    Answers,
    Predict,
    Score,
    SplitName,
    Task,
    answers_to,
    check_metric,
    grouped,
    score_of,
)
from autocompress.feeds import Ids
from autocompress.training.batches import TokenBatch

_MAX_TOKENS_UNSET = 10**9
"""Tokenizers that state no limit have a far larger one."""


@dataclass(frozen=True)
class Batch(TokenBatch):
    """Documents of a split.

    Attributes:
        labels: Classes (documents,), int64.
        indices: Positions of the documents in their split (documents,), int64.
    """

    labels: Tensor
    indices: Tensor


class TextClassification:
    """A data set that is tokenised once, and a metric; satisfies ``Task``.

    Args:
        dataset: Documents and classes.
        tokenizer: A Hugging Face tokenizer with a padding token.
        max_tokens: Longer documents are cut (special tokens count).
        metric: Key of ``METRICS``.

    Raises:
        ConfigError: The metric is not known, or the model reads fewer tokens.
        UnsupportedError: The tokenizer has no padding token.
    """

    def __init__(self, dataset: Dataset[Split], tokenizer: Any, *, max_tokens: int, metric: str = "accuracy") -> None:
        check_task(tokenizer, max_tokens=max_tokens, metric=metric)
        self.dataset, self.tokenizer, self.max_tokens, self.metric = dataset, tokenizer, max_tokens, metric
        splits = {name: dataset.split(name) for name in SPLITS}
        self._splits = {name: (self.encode(split.texts), split.labels) for name, split in splits.items()}

    @property
    def encoding(self) -> list[str]:
        """See ``Task.encoding``: the tokens that the tokenizer knows."""
        return sorted(self.tokenizer.get_vocab())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, at most ``max_tokens``, without padding."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, padding=False, return_attention_mask=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def with_tokenizer(self, tokenizer: Any) -> TextClassification:
        """Return the same task as another tokenizer cuts its documents."""
        return TextClassification(self.dataset, tokenizer, max_tokens=self.max_tokens, metric=self.metric)

    def token_counts(self, split: SplitName, vocabulary: int) -> Ids:
        """Return how often each of ``vocabulary`` ids occurs in a split (vocabulary,), special tokens included."""
        encoded, _ = self._splits[split]
        return np.bincount(np.fromiter(chain.from_iterable(encoded), np.int64), minlength=vocabulary)

    def tokens(self, split: SplitName) -> Sequence[Sequence[int]]:
        """See ``Task.tokens``; without padding."""
        return self._splits[split][0]

    def gather(self, split: SplitName, indices: Tensor) -> Batch:
        """See ``Task.gather``."""
        return self._collate(indices.tolist(), *self._splits[split], None)

    def batches(
        self,
        split: SplitName,
        *,
        batch_size: int,
        seed: int | None = None,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> list[Batch]:
        """See ``Task.batches``.

        Without a seed documents are sorted by length. Either way a batch holds documents of similar lengths, so that
        little is padded: to its longest, or to ``tokens``.
        """
        encoded, labels = self._splits[split]
        chosen = list(range(len(encoded))) if limit is None else stratified_order(labels, seed=0)[:limit]
        lengths = np.array([len(encoded[index]) for index in chosen])
        groups = grouped(lengths, batch_size, seed)
        return [self._collate([chosen[position] for position in group], encoded, labels, tokens) for group in groups]

    def evaluate(
        self,
        predict: Predict,
        split: SplitName = "validation",
        *,
        batch_size: int = 32,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> Score:
        """See ``Task.evaluate``."""
        return self.judge(self.answers(predict, split, batch_size=batch_size, limit=limit, tokens=tokens), split)

    def answers(
        self,
        predict: Predict,
        split: SplitName = "validation",
        *,
        batch_size: int = 32,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> dict[int, int]:
        """See ``Task.answers``."""
        batches = self.batches(split, batch_size=batch_size, limit=limit, tokens=tokens)
        return answers_to(batches, predict, classes=len(self.dataset.classes))

    def judge(self, answers: Answers, split: SplitName) -> Score:
        """See ``Task.judge``."""
        return score_of(answers, self._splits[split][1], classes=len(self.dataset.classes), metric=self.metric)

    def with_dataset(self, dataset: Dataset[Split]) -> TextClassification:
        """See ``Task.with_dataset``."""
        return TextClassification(dataset, self.tokenizer, max_tokens=self.max_tokens, metric=self.metric)

    def save(self, folder: Path) -> None:
        """See ``Task.save``."""
        self.tokenizer.save_pretrained(folder)

    def _collate(
        self, indices: list[int], encoded: Sequence[Sequence[int]], labels: Sequence[int], tokens: int | None
    ) -> Batch:
        width = tokens or max(len(encoded[index]) for index in indices)
        input_ids = torch.full((len(indices), width), self.tokenizer.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(indices), width), dtype=torch.int64)
        for row, index in enumerate(indices):
            ids = torch.tensor(encoded[index], dtype=torch.int64)
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return Batch(input_ids, attention_mask, torch.tensor([labels[i] for i in indices]), torch.tensor(indices))


def check_task(tokenizer: Any, *, max_tokens: int, metric: str) -> None:
    """Raise what ``TextClassification`` raises; before the data is there, so that a typo costs no download."""
    check_metric(metric)
    longest = tokenizer.model_max_length
    if max_tokens > longest and longest < _MAX_TOKENS_UNSET:
        raise ConfigError(
            f"Documents of {max_tokens} tokens are asked for, but the model reads {longest}.",
            right=f"max_tokens is at most {longest}.",
            next_step=f"Set task.max_tokens to {longest} or less.",
        )
    if tokenizer.pad_token_id is None:
        raise UnsupportedError(
            "The model's tokenizer has no padding token.",
            right="Batches of documents of several lengths need one.",
            next_step="Choose an encoder (BERT family) as the model.",
        )


def text_of(task: Task, purpose: str) -> TextClassification:
    """Return a task as one of text.

    Args:
        task: Any.
        purpose: What needs text, as the start of a sentence.

    Raises:
        UnsupportedError: Its examples are none.
    """
    if not isinstance(task, TextClassification):
        raise UnsupportedError(
            f"{purpose} needs text, and the examples of this task are images.",
            right="Images can be pruned, given fewer layers or channels, quantized, and learnt by recipes that compare"
            " answers or hidden states.",
            next_step="Leave it out of the run file, or choose another method.",
        )
    return task
