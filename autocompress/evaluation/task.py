"""Text classification: documents as padded token batches, and the score of whatever maps those to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.errors import AutoCompressError, ConfigError, UnsupportedError
from autocompress.evaluation.datasets import Dataset, Split
from autocompress.evaluation.metrics import METRICS, confusion_matrix, standard_error
from autocompress.evaluation.sampling import stratified_order
from autocompress.feeds import Feeds, Ids, Logits, Run
from autocompress.training.batches import TokenBatch, arrays_of
from autocompress.training.loop import logits_of, reading

SplitName: TypeAlias = Literal["train", "validation", "test"]
Predict: TypeAlias = Run
"""What ``engines`` open, and what ``predict_with`` makes of a torch module."""

WINDOW = 4
"""Batches among whose documents a shuffled epoch is sorted by length: short texts (SST-2, TREC-6) are then padded by
29 %, by shuffling alone by 93 and 104 %."""
Answers: TypeAlias = Mapping[int, int]
"""Place of a document in its split -> class."""
_MAX_TOKENS_UNSET = 10**9
"""Tokenizers that state no limit have a far larger one."""


class EvaluationError(AutoCompressError):
    """A model's logits cannot be scored."""


@dataclass(frozen=True)
class Batch(TokenBatch):
    """Documents of a split.

    Attributes:
        labels: Classes (documents,), int64.
        indices: Positions of the documents in their split (documents,), int64.
    """

    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Score:
    """A metric over ``count`` documents, 0 (worst) to 1 (best), and its standard error over such samples."""

    metric: str
    value: float
    standard_error: float
    count: int


class TextClassification:
    """A data set that is tokenised once, and a metric.

    Args:
        dataset: Documents and classes.
        tokenizer: A Hugging Face tokenizer with a padding token.
        max_tokens: Longer documents are cut (special tokens count).
        metric: Key of ``METRICS``.

    Raises:
        ConfigError: The metric is not known, or the model reads fewer tokens.
        UnsupportedError: The tokenizer has no padding token.
    """

    def __init__(self, dataset: Dataset, tokenizer: Any, *, max_tokens: int, metric: str = "accuracy") -> None:
        check_task(tokenizer, max_tokens=max_tokens, metric=metric)
        self.dataset, self.tokenizer, self.max_tokens, self.metric = dataset, tokenizer, max_tokens, metric
        splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        self._splits = {name: (self.encode(split.texts), split.labels) for name, split in splits.items()}

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
        """Return the token ids of each document of a split, without padding."""
        return self._splits[split][0]

    def gather(self, split: SplitName, indices: Tensor) -> Batch:
        """Return the documents at the positions ``indices`` (documents,) of a split, in that order."""
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
        """Return the documents of a split, each once, as batches.

        Args:
            split: Which.
            batch_size: Documents in a batch; the last may have fewer.
            seed: ``None`` sorts by length, for evaluation; a number shuffles, for training. Either way a batch holds
                documents of similar lengths, so that little is padded.
            limit: Use that many, drawn so that classes keep their share; always the same ones.
            tokens: Pad each batch to that many instead of to its longest document.
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
        """Score a classifier by ``answers`` and ``judge``, which say what arguments and errors are."""
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
        """Return the class that a classifier gives each document of a split, by its place.

        Args:
            predict: Feeds -> logits; an opened artifact, or ``predict_with(module)``.
            split: Of which documents.
            batch_size: Documents in a batch. Activations that are quantized over a whole batch make the result
                depend on it; 1 is what a device that gets one document at a time computes.
            limit: Of that many documents, as ``batches`` draws them.
            tokens: Pad to that many, for artifacts compiled for one length.

        Raises:
            EvaluationError: There are logits that are no numbers, or not one for each class.
        """
        found: dict[int, int] = {}
        for batch in self.batches(split, batch_size=batch_size, limit=limit, tokens=tokens):
            logits = np.asarray(predict(arrays_of(batch)))
            _check_logits(logits, (len(batch.labels), len(self.dataset.classes)))
            found |= zip(batch.indices.tolist(), logits.argmax(axis=1).tolist(), strict=True)
        return found

    def judge(self, answers: Answers, split: SplitName) -> Score:
        """Score answers against the labels of a split."""
        _, labels = self._splits[split]
        expected, given = ([labels[place] for place in answers], list(answers.values()))
        confusion = confusion_matrix(np.array(expected), np.array(given), classes=len(self.dataset.classes))
        metric = METRICS[self.metric]
        return Score(self.metric, metric(confusion), standard_error(metric, confusion), int(confusion.sum()))

    def answered_by(self, predict: Predict, splits: Sequence[SplitName]) -> TextClassification:
        """Return the same task with a classifier's answers in the place of the labels of some splits."""
        dataset = self.dataset
        for name in splits:
            answers = self.answers(predict, name)
            split: Split = getattr(self.dataset, name)
            given = replace(split, labels=tuple(answers[place] for place in range(len(split))))
            dataset = replace(dataset, **{name: given})  # type: ignore[arg-type]
        return TextClassification(dataset, self.tokenizer, max_tokens=self.max_tokens, metric=self.metric)

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


def predict_with(model: nn.Module) -> Predict:
    """Return a function that runs ``model`` in eval mode without gradients; its mode is put back after each call."""

    def predict(given: Feeds) -> Logits:
        with reading(model), torch.inference_mode():
            logits = logits_of(model, {name: torch.from_numpy(values) for name, values in given.items()})
        return np.asarray(logits.float().cpu().numpy())

    return predict


def grouped(lengths: npt.NDArray[np.int64], batch_size: int, seed: int | None) -> list[list[int]]:
    """Return the positions of each batch: sorted by length without a seed, else shuffled.

    Shuffled documents are sorted among ``WINDOW`` batches only. Over all of them batches would be of one class where
    length tells it (in Reuters R8, short is ``earn``), and train a worse model than the saved padding is worth.
    """
    if seed is None:
        return _cut(np.argsort(lengths, kind="stable"), batch_size)
    random, batches = np.random.default_rng(seed), []
    for window in _cut(random.permutation(len(lengths)), WINDOW * batch_size):
        among = _cut(np.array(window)[np.argsort(lengths[window], kind="stable")], batch_size)
        batches += [among[place] for place in random.permutation(len(among))]
    return batches


def _cut(order: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


def check_task(tokenizer: Any, *, max_tokens: int, metric: str) -> None:
    """Raise what ``TextClassification`` raises; before the data is there, so that a typo costs no download."""
    if metric not in METRICS:
        raise ConfigError(
            f"The metric {metric!r} is not known.",
            right=f"Metrics are {', '.join(METRICS)}.",
            next_step="Set task.metric to one of them.",
        )
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


def _check_logits(logits: npt.NDArray[Any], expected: tuple[int, int]) -> None:
    if logits.shape != expected or not np.isfinite(logits).all():
        found = f"shape {logits.shape}" if logits.shape != expected else "values that are no finite numbers"
        raise EvaluationError(
            f"The model's logits have {found}.",
            right=f"Finite logits of shape {expected} (documents x classes) are expected.",
            next_step="Train the model on this task's classes first; if it was, lower the learning rate.",
        )
