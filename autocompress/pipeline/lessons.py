"""What recipes read beside the training documents, each made when a student first learns from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from autocompress.compression.recipes.augmentation import Augmentation
from autocompress.compression.recipes.candidate_words import mask_id_of
from autocompress.compression.recipes.lessons import Answering, Guessing
from autocompress.compression.recipes.masking import MaskedBatch
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.config import RunConfig
from autocompress.devices.paths import cache_folder
from autocompress.evaluation.datasets import Split
from autocompress.evaluation.sources import MODEL_WEIGHTS, fetch
from autocompress.evaluation.task import Task
from autocompress.evaluation.text import Corpus
from autocompress.evaluation.text_classification import TextClassification, text_of
from autocompress.models.language_head import LanguageHead
from autocompress.models.load import load_classifier
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.teacher import Teacher, training_batches
from autocompress.pipeline.text import (
    augmented_split,
    corpus_of,
    head_of_checkpoint,
    language_head,
    masked_batches,
)
from autocompress.pipeline.vocabulary import Translation
from autocompress.training.batches import TrainingBatch

HEAD_STEPS = 300
"""Of the fit of the teacher's language head."""
VARYING, GUESSING = "A recipe that varies documents", "A recipe that guesses tokens"


class Lessons:
    """Varied documents and text with tokens to guess, as students read them.

    Args:
        config: Says where the model came from, what text there is, and how documents are varied.
        teacher: Guesses and answers.
        progress: Told what takes long.

    Raises:
        UnsupportedError: A recipe of the run guesses tokens, and the task is none of text, or has no mask token.
    """

    def __init__(self, config: RunConfig, teacher: Teacher, progress: Progress) -> None:
        self._config, self._teacher, self._progress = config, teacher, progress
        recipes = (RECIPES[name] for name in config.recipes)
        if any(phase.lesson == "text" for recipe in recipes for phase in recipe.phases):
            mask_id_of(text_of(teacher.task, GUESSING).tokenizer)

    def varied(self, task: Task, translation: Translation | None) -> Answering:
        """Return the training documents and what was made of them.

        Args:
            task: As the student's tokenizer cuts it.
            translation: The teacher's ids of the student's tokens; ``None``: the same.
        """
        own, theirs = (self._with_variants(text_of(each, VARYING)) for each in (task, self._teacher.task))
        # Not kept on disk: a training sees most of so many documents once.
        outputs = TeacherOutputs(self._teacher.model, read=partial(theirs.gather, "train")).for_tokens(translation)

        def batches(steps: int, seed: int) -> Iterator[TrainingBatch]:
            return training_batches(own, steps, batch_size=self._config.search.batch_size, seed=seed)

        return Answering(batches, outputs)

    def text(self, task: Task, translation: Translation | None) -> Guessing:
        """Return text of which the student guesses tokens; see ``varied``."""
        tokenizer = text_of(task, GUESSING).tokenizer
        corpus, vocabulary = self._corpus.with_tokenizer(tokenizer), len(tokenizer)

        def batches(steps: int, seed: int) -> Iterator[MaskedBatch]:
            return masked_batches(corpus, steps, batch_size=self._config.search.batch_size, seed=seed)

        return Guessing(
            batches,
            self._teacher.model,
            self._language_head,
            corpus.token_counts(vocabulary),
            kept=None if translation is None else translation(torch.arange(vocabulary)),
        )

    def _with_variants(self, task: TextClassification) -> TextClassification:
        return task.with_dataset(replace(task.dataset, train=self._variants))

    @cached_property
    def _variants(self) -> Split:
        task = text_of(self._teacher.task, VARYING)
        return augmented_split(
            task.dataset.train,
            encoder=self._pretrained,
            head=head_of_checkpoint(self._source, self._pretrained, self._corpus),
            tokenizer=task.tokenizer,
            settings=Augmentation(variants=self._config.search.variants, seed=self._config.search.seed),
            cache=cache_folder(),
            on_batch=lambda done, total: self._progress("vary documents", done, total, "guessing words"),
        )

    @cached_property
    def _source(self) -> Path:
        """The model's folder as it came."""
        model = self._config.model
        return fetch(model.source, cache=cache_folder(), sha256=model.sha256, verify=MODEL_WEIGHTS)

    @cached_property
    def _pretrained(self) -> nn.Module:
        """The encoder before it was fine-tuned, as far as that is known."""
        if self._config.model.finetune is None:
            return self._teacher.model
        return load_classifier(self._source, classes=self._teacher.task.dataset.classes)

    @cached_property
    def _corpus(self) -> Corpus:
        return corpus_of(self._config, text_of(self._teacher.task, GUESSING))

    @cached_property
    def _language_head(self) -> LanguageHead:
        return language_head(
            self._source,
            self._teacher.model,
            self._corpus,
            steps=HEAD_STEPS,
            seed=self._config.search.seed,
            on_step=lambda step, total, loss: self._progress("language head", step, total, f"loss {loss:.3f}"),
        )
