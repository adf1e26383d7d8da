"""What a run file names, fetched and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autocompress.compression.recipes.table import RECIPES
from autocompress.config import Model, RunConfig, Student
from autocompress.devices.paths import cache_folder
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.datasets import DataSpec
from autocompress.evaluation.image_classification import ImageClassification
from autocompress.evaluation.load import load_image_task, load_task, load_tokenizer
from autocompress.evaluation.pixel_format import read_format
from autocompress.evaluation.sources import MODEL_WEIGHTS, fetch
from autocompress.evaluation.task import Task
from autocompress.evaluation.text_classification import check_task, text_of
from autocompress.models.load import load_shape
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.vocabulary import check_coverage
from autocompress.plan import RecipeName
from autocompress.shape import ModelShape, Pixels
from autocompress.task_config import IMAGES


@dataclass(frozen=True)
class Fetched:
    """A model as it comes.

    Attributes:
        folder: Where it lies.
        shape: The one that it will have for the task.
        task: As it reads the examples.
    """

    folder: Path
    shape: ModelShape
    task: Task


@dataclass(frozen=True)
class Inputs:
    """What a run file names.

    Attributes:
        teacher: ``model.source``.
        start: What students are made of: ``model.student``, or the teacher.
        counterparts: The teacher's ids of the start's tokens (vocabulary,); ``None`` where they are the same, or where
            some are missing and no recipe of the run compares token by token.
    """

    teacher: Fetched
    start: Fetched
    counterparts: Tensor | None = None


def fetch_inputs(config: RunConfig, progress: Progress = quiet) -> Inputs:
    """Fetch models and documents; no weights are read.

    Raises:
        SourceError: One is missing, unreadable or not what the task needs.
        ConfigError: Documents are longer than a model reads, or too few tokens are kept.
        UnsupportedError: No adapter knows a model, or a recipe cannot compare the two.
    """
    sources = [each.source for each in (config.model, config.task.data, config.model.student) if each is not None]
    progress("fetch", 0, len(sources), sources[0])
    folder, shape = _model(config.model, config)
    progress("fetch", 1, len(sources), sources[1])
    task = _task(folder, shape.pixels, shape.positions, config)
    classes = len(task.dataset.classes)
    teacher = Fetched(folder, replace(shape, classes=classes), task)
    inputs = Inputs(teacher, teacher)
    if config.model.student is not None:
        progress("fetch", 2, len(sources), sources[2])
        inputs = _with_student(teacher, config.model.student, config)
    progress("fetch", len(sources), len(sources), f"{len(task.dataset.train)} training examples, {classes} classes")
    start, space = inputs.start, config.search.space
    check_coverage(start.task, start.shape.vocabulary, space.vocabulary_keep, space.vocabulary_coverage)
    return inputs


def settled(config: RunConfig, inputs: Inputs) -> RunConfig:
    """Return the run file with what only the model knows: how many tokens it makes of an image."""
    task = config.task.model_copy(update={"max_tokens": inputs.teacher.task.max_tokens})
    return config.model_copy(update={"task": task})


def _task(folder: Path, pixels: Pixels | None, positions: int, config: RunConfig) -> Task:
    given, data = config.task, DataSpec(**config.task.data.model_dump())
    limits = {"train_limit": given.train_limit, "eval_limit": given.eval_limit}
    load: Callable[..., Task] = partial(load_task, folder, data, max_tokens=given.max_tokens)
    if pixels is not None:
        load = partial(load_image_task, folder, data, pixels, tokens=positions)
    return load(cache=cache_folder(), metric=given.metric, validation_fraction=given.validation_fraction, **limits)


def _model(named: Model | Student, config: RunConfig) -> tuple[Path, ModelShape]:
    folder = fetch(named.source, cache=cache_folder(), sha256=named.sha256, verify=MODEL_WEIGHTS)
    shape, tokens = load_shape(folder), config.task.max_tokens
    _check_kind(named.source, shape, config)
    if shape.pixels is None and tokens > shape.positions:  # Not every tokenizer states a limit.
        raise ConfigError(
            f"Documents of {tokens} tokens are asked for, but the model reads {shape.positions}.",
            right=f"max_tokens is at most {shape.positions}.",
            next_step=f"Set task.max_tokens to {shape.positions} or less.",
        )
    return folder, shape


def _with_student(teacher: Fetched, student: Student, config: RunConfig) -> Inputs:
    folder, shape = _model(student, config)
    if isinstance(teacher.task, ImageClassification):
        _check_same_images(folder, shape, teacher)
        return Inputs(teacher, Fetched(folder, replace(shape, classes=teacher.shape.classes), teacher.task))
    task, tokenizer = text_of(teacher.task, "model.student"), load_tokenizer(folder)
    check_task(tokenizer, max_tokens=config.task.max_tokens, metric=config.task.metric)
    start = Fetched(folder, replace(shape, classes=teacher.shape.classes), task.with_tokenizer(tokenizer))
    found = counterparts(tokenizer, task.tokenizer, shape.vocabulary)
    if isinstance(found, str):
        _check_recipes(config.recipes, missing=found)
        return Inputs(teacher, start)
    same = torch.equal(found, torch.arange(teacher.shape.vocabulary))
    return Inputs(teacher, start, None if same else found)


def _check_kind(source: str, shape: ModelShape, config: RunConfig) -> None:
    """Refuse documents for a model that reads images, images for one that reads text, and recipes that need text."""
    reads, other = ("text", IMAGES) if shape.pixels is None else ("images", "text-classification")
    if config.task.kind == other:
        raise ConfigError(
            f"task.kind is {other!r}, and {source} reads {reads}.",
            right="Model and task are both of text, or both of images.",
            next_step="Correct task.kind, or name another model.",
        )
    textual = [name for name, recipe in RECIPES.items() if any(phase.lesson != "task" for phase in recipe.phases)]
    needy = [name for name in config.recipes if name in textual]
    if shape.pixels is not None and needy:
        raise ConfigError(
            f"The recipe {needy[0]} learns from text that is varied or masked, and {source} reads images.",
            right=f"From images learn {', '.join(name for name in RECIPES if name not in textual)}.",
            next_step="Choose one of these under search.space.recipe and model.student.recipe.",
        )


def _check_same_images(folder: Path, shape: ModelShape, teacher: Fetched) -> None:
    """Refuse another model for students that reads images in another way than the teacher."""
    assert isinstance(teacher.task, ImageClassification) and shape.pixels is not None
    if shape.pixels != teacher.shape.pixels or read_format(folder, shape.pixels) != teacher.task.format:
        raise UnsupportedError(
            f"{folder} reads images in another size, in other patches or with other means than the teacher.",
            right="Images are held once, as teacher and students both read them.",
            next_step="Name a model.student with the teacher's image_size, patch_size and processor, or leave it out.",
        )


def counterparts(ours: Any, theirs: Any, vocabulary: int) -> Tensor | str:
    """Return the ids in one tokenizer of another's tokens.

    Args:
        ours: The other.
        theirs: The one.
        vocabulary: Of the model that reads ``ours``; of its rows those that stand for no token count as unknown tokens.

    Returns:
        (vocabulary,) ids in ``theirs``, or the first token of ``ours`` that it does not have.
    """
    known, unknown = theirs.get_vocab(), theirs.unk_token_id
    ids = torch.full((vocabulary,), theirs.pad_token_id if unknown is None else unknown)
    for token, place in sorted(ours.get_vocab().items(), key=itemgetter(1)):
        if token not in known:
            return str(token)
        if place < vocabulary:
            ids[place] = known[token]
    return ids


def _check_recipes(names: tuple[RecipeName, ...], *, missing: str) -> None:
    """Refuse recipes that compare tokens of models that have different ones."""
    compares = {
        name: recipe.compares_tokens or any(phase.lesson == "text" for phase in recipe.phases)
        for name, recipe in RECIPES.items()
    }
    for name in names:
        if compares[name]:
            raise UnsupportedError(
                f"The recipe {name} compares models token by token, and the teacher has no token {missing!r}.",
                right="All tokens of model.student are tokens of the teacher, or recipes compare answers alone: "
                + ", ".join(each for each, does in compares.items() if not does)
                + ".",
                next_step="Choose another of these, or another model.student.",
            )
