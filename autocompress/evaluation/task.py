"""What a pipeline asks of a task, whatever its examples are, and what all tasks compute alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.errors import AutoCompressError, ConfigError
from autocompress.evaluation.datasets import Dataset
from autocompress.evaluation.metrics import METRICS, confusion_matrix, standard_error
from autocompress.feeds import Feeds, Logits, Run
from autocompress.training.batches import TrainingBatch, arrays_of
from autocompress.training.loop import logits_of, reading

SplitName: TypeAlias = Literal["train", "validation", "test"]
Predict: TypeAlias = Run
"""What ``engines`` open, and what ``predict_with`` makes of a torch module."""
Answers: TypeAlias = Mapping[int, int]
"""Place of an example in its split -> class."""

WINDOW = 4
"""Batches among whose examples a shuffled epoch is sorted by length: short texts (SST-2, TREC-6) are then padded by
29 %, by shuffling alone by 93 and 104 %."""


class EvaluationError(AutoCompressError):
    """A model's logits cannot be scored."""


@dataclass(frozen=True)
class Score:
    """A metric over ``count`` examples, 0 (worst) to 1 (best), and its standard error over such samples."""

    metric: str
    value: float
    standard_error: float
    count: int


class Task(Protocol):
    """Examples as a model reads them, and a metric."""

    @property
    def dataset(self) -> Dataset[Any]:
        """Examples and classes."""

    @property
    def metric(self) -> str:
        """Key of ``METRICS``."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest example."""

    @property
    def encoding(self) -> object:
        """What decides how an example becomes numbers, as JSON values: a student of other numbers is another."""

    def tokens(self, split: SplitName) -> Sequence[Sequence[int]]:
        """Return what each token of each example is: its id, or its place in an image."""

    def gather(self, split: SplitName, indices: Tensor) -> TrainingBatch:
        """Return the examples at the places ``indices`` (examples,) of a split, in that order."""

    def batches(
        self,
        split: SplitName,
        *,
        batch_size: int,
        seed: int | None = None,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> Sequence[TrainingBatch]:
        """Return the examples of a split, each once, as batches.

        Args:
            split: Which.
            batch_size: Examples in a batch; the last may have fewer.
            seed: ``None`` for evaluation; a number shuffles, for training.
            limit: Use that many, drawn so that classes keep their share; always the same ones.
            tokens: Pad each batch to that many, where examples differ in length.
        """

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

    def answers(
        self,
        predict: Predict,
        split: SplitName = "validation",
        *,
        batch_size: int = 32,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> Answers:
        """Return the class that a classifier gives each example of a split, by its place.

        Args:
            predict: Feeds -> logits; an opened artifact, or ``predict_with(module)``.
            split: Of which examples.
            batch_size: Examples in a batch. Activations that are quantized over a whole batch make the result
                depend on it; 1 is what a device that gets one example at a time computes.
            limit: Of that many examples, as ``batches`` draws them.
            tokens: Pad to that many, for artifacts compiled for one length.

        Raises:
            EvaluationError: There are logits that are no numbers, or not one for each class.
        """

    def judge(self, answers: Answers, split: SplitName) -> Score:
        """Score answers against the labels of a split."""

    def with_dataset(self, dataset: Dataset[Any]) -> Task:
        """Return the same task with other examples or labels."""

    def save(self, folder: Path) -> None:
        """Write into a model's folder what makes feeds of examples: a tokenizer, or an image processor."""


def predict_with(model: nn.Module) -> Predict:
    """Return a function that runs ``model`` in eval mode without gradients; its mode is put back after each call."""

    def predict(given: Feeds) -> Logits:
        with reading(model), torch.inference_mode():
            logits = logits_of(model, {name: torch.from_numpy(values) for name, values in given.items()})
        return np.asarray(logits.float().cpu().numpy())

    return predict


def answers_to(batches: Iterable[TrainingBatch], predict: Predict, *, classes: int) -> dict[int, int]:
    """Return the class that a classifier gives each example of some batches, by its place; see ``Task.answers``."""
    found: dict[int, int] = {}
    for batch in batches:
        logits = np.asarray(predict(arrays_of(batch)))
        _check_logits(logits, (len(batch.labels), classes))
        found |= zip(batch.indices.tolist(), logits.argmax(axis=1).tolist(), strict=True)
    return found


def score_of(answers: Answers, labels: Sequence[int], *, classes: int, metric: str) -> Score:
    """Score answers against the labels of their split; see ``Task.judge``."""
    expected, given = ([labels[place] for place in answers], list(answers.values()))
    confusion = confusion_matrix(np.array(expected), np.array(given), classes=classes)
    compute = METRICS[metric]
    return Score(metric, compute(confusion), standard_error(compute, confusion), int(confusion.sum()))


def answered_by(task: Task, predict: Predict, splits: Sequence[SplitName]) -> Task:
    """Return the same task with a classifier's answers in the place of the labels of some splits."""
    given = {name: task.answers(predict, name) for name in splits}
    labels: dict[str, tuple[int, ...]] = {
        name: tuple(found[place] for place in range(len(found))) for name, found in given.items()
    }
    return task.with_dataset(task.dataset.with_labels(labels))


def grouped(lengths: npt.NDArray[np.int64], batch_size: int, seed: int | None) -> list[list[int]]:
    """Return the positions of each batch: sorted by length without a seed, else shuffled.

    Shuffled examples are sorted among ``WINDOW`` batches only. Over all of them batches would be of one class where
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


def check_metric(metric: str) -> None:
    """Refuse a metric that is not in ``METRICS``.

    Raises:
        ConfigError: It is not.
    """
    if metric not in METRICS:
        raise ConfigError(
            f"The metric {metric!r} is not known.",
            right=f"Metrics are {', '.join(METRICS)}.",
            next_step="Set task.metric to one of them.",
        )


def _check_logits(logits: npt.NDArray[Any], expected: tuple[int, int]) -> None:
    if logits.shape != expected or not np.isfinite(logits).all():
        found = f"shape {logits.shape}" if logits.shape != expected else "values that are no finite numbers"
        raise EvaluationError(
            f"The model's logits have {found}.",
            right=f"Finite logits of shape {expected} (examples x classes) are expected.",
            next_step="Train the model on this task's classes first; if it was, lower the learning rate.",
        )
