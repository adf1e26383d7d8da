"""Students of fewer tokens: which tokens go, and the task as each student's own tokenizer cuts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autocompress.compression.ranking.token_importance import attention_received, extrapolate
from autocompress.compression.vocabulary import VocabularyStep, kept_of, kept_tokens, order_tokens
from autocompress.errors import ConfigError
from autocompress.evaluation.task import Task
from autocompress.evaluation.text_classification import TextClassification, text_of
from autocompress.evaluation.tokenizers import common_tokens, needed_tokens, parts_of_tokens, shrink
from autocompress.feeds import Ids
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan

IMPORTANCE_DOCUMENTS = 2048
"""Training documents whose attention is measured; what tokens receive in the others is extrapolated."""
BATCH = 32
SMALLER = "A smaller vocabulary (search.space.vocabulary_keep)"
Translation: TypeAlias = Callable[[Tensor], Tensor]
"""Ids of a student's tokens (any dimensions) -> the teacher's ids of them."""


class Vocabularies:
    """The order in which a model's tokens are kept, and its task for students of fewer of them.

    Args:
        model: Its attention ranks the tokens, once, when the first smaller vocabulary is asked for.
        task: As it reads it.
        coverage: See ``check_coverage``.
        counterparts: The teacher's ids of its tokens (vocabulary,); ``None``: the same.
    """

    def __init__(self, model: nn.Module, task: Task, *, coverage: float, counterparts: Tensor | None = None) -> None:
        self._model, self._task, self._coverage, self._counterparts = model, task, coverage, counterparts
        self._vocabulary = adapter_of(model).shape(model).vocabulary
        self._tasks: dict[int, Task] = {self._vocabulary: task}

    def order(self, vocabulary: int) -> Sequence[int]:
        """Return all of the model's ids, the ones to keep longest first; see ``Context.token_order``."""
        return self._order

    def task(self, plan: CompressionPlan) -> Task:
        """Return the task as the plan's student reads it: text as its own tokenizer cuts it."""
        keep = self._keep(plan)
        if keep not in self._tasks:
            task = text_of(self._task, SMALLER)
            self._tasks[keep] = task.with_tokenizer(shrink(task.tokenizer, kept_tokens(self._order, keep)))
        return self._tasks[keep]

    def translation(self, plan: CompressionPlan) -> Translation | None:
        """Return what turns ids of the plan's student into the teacher's; ``None`` where they are the same."""
        keep, theirs = self._keep(plan), self._counterparts
        if keep < self._vocabulary:
            kept = torch.tensor(kept_tokens(self._order, keep))
            theirs = kept if theirs is None else theirs[kept]
        return None if theirs is None else lambda ids: theirs[ids]

    def _keep(self, plan: CompressionPlan) -> int:
        keeps = [step.keep for step in plan.steps if isinstance(step, VocabularyStep)]
        return keeps[-1] if keeps else self._vocabulary

    @cached_property
    def _order(self) -> tuple[int, ...]:
        task = text_of(self._task, SMALLER)
        batches = task.batches("train", batch_size=BATCH, limit=IMPORTANCE_DOCUMENTS)
        read = torch.cat([batch.input_ids[batch.attention_mask.bool()] for batch in batches])
        received = attention_received(self._model, batches, not_from=task.tokenizer.all_special_ids)
        counts = task.token_counts("train", self._vocabulary)
        needed, common = _floor(task, counts, self._coverage)
        occurrences = torch.from_numpy(counts)
        return order_tokens(
            extrapolate(received, torch.bincount(read, minlength=self._vocabulary), occurrences),
            occurrences,
            needed=needed,
            common=common,
            parts=parts_of_tokens(task.tokenizer),
        )


def token_counts(task: Task, vocabulary: int) -> Tensor:
    """Return how often each token occurs in the training documents; see ``Context.token_counts``."""
    return torch.from_numpy(text_of(task, "Counting tokens").token_counts("train", vocabulary)).float()


def check_coverage(task: Task, vocabulary: int, keep: Sequence[float], coverage: float) -> None:
    """Refuse shares of the vocabulary that leave too little of what the training documents are made of.

    A share is refused rather than raised, so that the plan's count is what the run file says.

    Args:
        task: As the model reads it.
        vocabulary: Tokens of the model.
        keep: Shares of these (0 to 1).
        coverage: Least share of all tokens in the training documents that are of a kind that is kept (0 to 1).

    Raises:
        ConfigError: A share is too small.
        UnsupportedError: The tokenizer cannot be made smaller, or there is none.
    """
    if min(keep) >= 1:
        return
    documents = text_of(task, SMALLER)
    if kept_of(vocabulary, min(keep)) >= vocabulary:
        return
    needed, common = _floor(documents, documents.token_counts("train", vocabulary), coverage)
    least = len(needed) + len(common)
    if kept_of(vocabulary, min(keep)) < least:
        raise ConfigError(
            f"search.space.vocabulary_keep has {min(keep):g}, which is {kept_of(vocabulary, min(keep))} tokens.",
            right=f"{least} tokens make up {coverage:g} of the training documents: a share of"
            f" {np.ceil(least / vocabulary * 1000) / 1000:g} of the model's {vocabulary}.",
            next_step="Keep that share or more, or allow less in search.space.vocabulary_coverage.",
        )


def _floor(task: TextClassification, counts: Ids, coverage: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer needs, and those that hold the coverage besides."""
    special, parts = task.tokenizer.all_special_ids, parts_of_tokens(task.tokenizer)
    needed = needed_tokens(task.tokenizer, counts)
    return needed, common_tokens(counts, needed, parts, coverage=coverage, uncounted=special)
