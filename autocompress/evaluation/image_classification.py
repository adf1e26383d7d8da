"""Image classification: images as batches of normalized pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autocompress.evaluation.datasets import Dataset
from autocompress.evaluation.images import ImageSplit
from autocompress.evaluation.pixel_format import PixelFormat
from autocompress.evaluation.sampling import stratified_order
from autocompress.evaluation.task import (
    Answers,
    Predict,
    Score,
    SplitName,
    answers_to,
    check_metric,
    grouped,
    score_of,
)
from autocompress.feeds import PIXELS


@dataclass(frozen=True)
class ImageBatch:
    """Images of a split; satisfies ``training.batches.TrainingBatch``.

    Attributes:
        pixels: (images x channels x height x width) float32.
        attention_mask: 1 for each token that they become (images x tokens), int64.
        labels: Classes (images,), int64.
        indices: Places of the images in their split (images,), int64.
    """

    pixels: Tensor
    attention_mask: Tensor
    labels: Tensor
    indices: Tensor

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """See ``ModelBatch.inputs``."""
        return {PIXELS: self.pixels}


class Batches(Sequence[ImageBatch]):
    """Batches that are made when they are asked for: floats of all images take four times the memory of their levels.

    Args:
        make: The batch of images at some places.
        groups: Places of each batch.
    """

    def __init__(self, make: Callable[[list[int]], ImageBatch], groups: Sequence[list[int]]) -> None:
        self._make, self._groups = make, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, at: Any) -> Any:
        """Return a batch or, of a slice, its batches."""
        chosen = self._groups[at]
        return Batches(self._make, chosen) if isinstance(at, slice) else self._make(chosen)


class ImageClassification:
    """A data set of images in the size that a model reads, and a metric; satisfies ``Task``.

    Args:
        dataset: Images and classes.
        format_: How the model reads them.
        tokens: That it makes of each image, learned ones included.
        metric: Key of ``METRICS``.

    Raises:
        ConfigError: The metric is not known.
    """

    def __init__(
        self, dataset: Dataset[ImageSplit], format_: PixelFormat, *, tokens: int, metric: str = "accuracy"
    ) -> None:
        check_metric(metric)
        self.dataset, self.format, self.max_tokens, self.metric = dataset, format_, tokens, metric

    @property
    def encoding(self) -> object:
        """See ``Task.encoding``."""
        return asdict(self.format)

    def tokens(self, split: SplitName) -> Sequence[Sequence[int]]:
        """See ``Task.tokens``."""
        return [range(self.max_tokens)] * len(self.dataset.split(split))

    def gather(self, split: SplitName, indices: Tensor) -> ImageBatch:
        """See ``Task.gather``."""
        chosen = self.dataset.split(split).chosen(indices.tolist())
        return ImageBatch(
            self.format.normalize(torch.from_numpy(chosen.images)),
            torch.ones(len(chosen), self.max_tokens, dtype=torch.int64),
            torch.tensor(chosen.labels),
            indices,
        )

    def batches(
        self,
        split: SplitName,
        *,
        batch_size: int,
        seed: int | None = None,
        limit: int | None = None,
        tokens: int | None = None,
    ) -> Sequence[ImageBatch]:
        """See ``Task.batches``; without a seed in the order of the split. All images make equally many tokens."""
        labels = self.dataset.split(split).labels
        chosen = list(range(len(labels))) if limit is None else stratified_order(labels, seed=0)[:limit]
        groups = grouped(np.zeros(len(chosen), np.int64), batch_size, seed)
        places = [[chosen[position] for position in group] for group in groups]
        return Batches(lambda group: self.gather(split, torch.tensor(group)), places)

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
        labels, classes = self.dataset.split(split).labels, len(self.dataset.classes)
        return score_of(answers, labels, classes=classes, metric=self.metric)

    def with_dataset(self, dataset: Dataset[ImageSplit]) -> ImageClassification:
        """See ``Task.with_dataset``."""
        return ImageClassification(dataset, self.format, tokens=self.max_tokens, metric=self.metric)

    def save(self, folder: Path) -> None:
        """See ``Task.save``."""
        self.format.save(folder)
