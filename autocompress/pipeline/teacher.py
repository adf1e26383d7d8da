"""The model that comes in: fetched, fine-tuned if asked, and ready with its task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.config import RunConfig
from autocompress.devices.paths import cache_folder
from autocompress.errors import SourceError
from autocompress.evaluation.sources import MODEL_WEIGHTS
from autocompress.evaluation.task import Task, answered_by, predict_with
from autocompress.export.package import replacing, sha256_of
from autocompress.models.load import adapter_of, load_classifier
from autocompress.pipeline.inputs import Inputs, fetch_inputs
from autocompress.pipeline.progress import Progress, quiet
from autocompress.shape import ModelShape
from autocompress.training.batches import TrainingBatch
from autocompress.training.checkpoint import Checkpoint
from autocompress.training.device import best_device, placed
from autocompress.training.loop import cross_entropy, head_rate, repeat, train


@dataclass(frozen=True)
class Teacher:
    """A classifier that does its task.

    Attributes:
        model: In eval mode.
        shape: Of the model.
        task: Examples and metric; for fidelity, labels of all but the test split are the model's answers.
        folder: Where the model lies.
        fingerprint: Changes whenever weights or documents do.
    """

    model: nn.Module
    shape: ModelShape
    task: Task
    folder: Path
    fingerprint: str


def load_teacher(
    config: RunConfig, progress: Progress = quiet, inputs: Inputs | None = None, *, fit: bool = True
) -> Teacher:
    """Fetch model and data, and fine-tune the model if the run says so and it was not done before.

    Args:
        config: The run file.
        progress: Told of every stage.
        inputs: What was fetched; by default it is fetched now.
        fit: Whether a model that has to be fine-tuned may be, here and now: on another machine it becomes another one.

    Raises:
        SourceError: Model or data is missing, unreadable or not what the task needs; or it would have to be fitted.
        ConfigError, UnsupportedError: The model cannot do the task, or there is no such device to train on.
    """
    best_device(config.search.training_device)  # First: this machine may have no such device.
    given = (inputs or fetch_inputs(config, progress)).teacher
    task = given.task
    folder = given.folder
    if config.model.finetune is not None:
        folder = _fine_tuned(config, given.folder, task, progress, fit=fit)
    model = load_classifier(folder)
    _check_classes(model, task, config)
    if config.goal.objective == "fidelity":
        progress("teacher's answers", 0, 1, "they take the place of labels")
        task = answered_by(task, predict_with(model), ("train", "validation"))
    fingerprint = digest(sha256_of(folder / MODEL_WEIGHTS), _documents(task))
    return Teacher(model, adapter_of(model).shape(model), task, folder, fingerprint)


def _fine_tuned(config: RunConfig, source: Path, task: Task, progress: Progress, *, fit: bool) -> Path:
    """Return the folder of the fine-tuned model, from the cache if the same was made before."""
    recipe = config.model.finetune
    assert recipe is not None
    key = digest(
        sha256_of(source / MODEL_WEIGHTS), _documents(task), recipe.model_dump(), task.max_tokens, torch.__version__
    )
    folder = cache_folder() / "teachers" / key
    device, checkpoint = best_device(config.search.training_device), Checkpoint(folder.with_suffix(".training"))
    if (folder / MODEL_WEIGHTS).is_file():
        checkpoint.discard()  # One that was made by a process that was killed just then.
        progress("fine-tune", 1, 1, f"cached in {folder}")
        return folder
    if not fit:
        raise SourceError(
            f"The fine-tuned teacher of this run is not on this machine: {folder} is missing.",
            right="All who work on a run have the same teacher, from the machine that fine-tuned it.",
            next_step="Copy that folder from there, set AUTOCOMPRESS_HOME to a folder that all share, or install the"
            " same version of torch, which is part of its name.",
        )
    torch.manual_seed(recipe.seed)
    model: Any = load_classifier(source, classes=task.dataset.classes)
    documents = min(len(task.dataset.train), recipe.train_limit or len(task.dataset.train))
    steps = max(1, recipe.epochs * ceil(documents / recipe.batch_size))
    progress("fine-tune", 0, steps, f"{documents} documents")
    with placed(device, model):
        train(
            model,
            training_batches(task, steps, batch_size=recipe.batch_size, seed=recipe.seed, limit=recipe.train_limit),
            cross_entropy,
            learning_rate=recipe.learning_rate,
            steps=steps,
            rate_of=head_rate(recipe.head_ratio),
            seed=recipe.seed,
            on_step=lambda step, total, loss: progress("fine-tune", step, total, f"loss {loss:.3f}"),
            checkpoint=checkpoint,
        )
    with replacing(folder) as draft:
        model.save_pretrained(draft)
        task.save(draft)
    checkpoint.discard()
    return folder


def training_batches(
    task: Task, steps: int, *, batch_size: int, seed: int, limit: int | None = None
) -> Iterator[TrainingBatch]:
    """Yield ``steps`` batches of training documents, shuffled anew for each pass."""

    def epoch(number: int) -> Sequence[TrainingBatch]:
        return task.batches("train", batch_size=batch_size, seed=seed * 1000 + number, limit=limit)

    return repeat(epoch, steps=steps)


def _check_classes(model: Any, task: Task, config: RunConfig) -> None:
    """Refuse a model whose outputs are not the task's classes, in the task's order."""
    stored = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    classes = list(task.dataset.classes)
    unnamed = stored == [f"LABEL_{index}" for index in range(len(stored))]
    if stored == classes or (unnamed and len(stored) == len(classes)):
        return
    raise SourceError(
        f"The model tells {len(stored)} classes apart ({_few(stored)}), the data has {len(classes)} ({_few(classes)}).",
        right="Model and data have the same classes.",
        next_step=f"Add `finetune: {{}}` under model to fit {config.model.source} to this data, or correct task.data.",
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _documents(task: Task) -> str:
    dataset = task.dataset
    return digest(*(split.content() for split in (dataset.train, dataset.validation, dataset.test)))


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that change with any of these JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
