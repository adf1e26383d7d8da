"""Vocabulary pruning: rows of the token table are removed, and the tokenizer gets along without their tokens.

Source: "hard token pruning" of EI-BERT (Wang et al., KDD 2025, arXiv 2507.04636); what is known of it, and what had to
be reconstructed, is said in ``token_importance``. A text whose tokens are all kept is read as before; else the smaller
tokenizer cuts a word into smaller pieces, so that a student's documents are encoded anew with its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError
from autocompress.models.adapter import refuse_of_images
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class VocabularyStep:
    """Keep the first ``keep`` tokens of the teacher's order (``Context.token_order``)."""

    method: ClassVar[str] = "vocabulary"
    keep: int


STEP = VocabularyStep


def kept_of(vocabulary: int, share: float) -> int:
    """Return how many of ``vocabulary`` tokens a share (0 to 1) of them is, at least one."""
    return max(1, round(vocabulary * share))


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> VocabularyStep:
    """Choose the share of tokens that is kept; a model that reads images has none."""
    if shape.pixels is not None:
        return VocabularyStep(0)
    return VocabularyStep(
        kept_of(shape.vocabulary, trial.suggest_categorical("vocabulary_keep", space.vocabulary_keep))
    )


def reshape(shape: ModelShape, step: VocabularyStep) -> ModelShape:
    """Return ``shape`` with so many tokens.

    Raises:
        ConfigError: None is kept, or more than there are.
        UnsupportedError: The model reads images.
    """
    if shape.pixels is not None:
        return shape if step.keep == 0 else refuse_of_images(f"a vocabulary of {step.keep} tokens")
    if not 1 <= step.keep <= shape.vocabulary:
        raise ConfigError(
            f"A vocabulary of {step.keep} tokens is asked for.",
            right=f"The model has {shape.vocabulary}; at least one stays.",
            next_step="Correct keep in the plan's vocabulary step.",
        )
    return replace(shape, vocabulary=step.keep)


def apply(model: nn.Module, step: VocabularyStep, context: Context) -> nn.Module:
    """Remove the other tokens; those that stay keep their order.

    Raises:
        ConfigError: As ``reshape``.
    """
    adapter = adapter_of(model)
    shape = adapter.shape(model)
    if reshape(shape, step) != shape:
        adapter.keep_tokens(model, kept_tokens(context.token_order(shape.vocabulary), step.keep))
    return model


def kept_tokens(order: Sequence[int], keep: int) -> tuple[int, ...]:
    """Return the first ``keep`` ids of ``order``, ascending: what was first of two tokens in the table stays first."""
    return tuple(sorted(order[:keep]))


def order_tokens(
    importance: Tensor,
    counts: Tensor,
    *,
    needed: Sequence[int],
    common: Sequence[int],
    parts: Mapping[int, tuple[int, ...]],
) -> tuple[int, ...]:
    """Return all ids, the ones to keep longest first, so that any number of kept tokens is a prefix.

    First come the ``needed``, then the ``common``, then the others; the last two by importance, equal ones by how often
    they occur, then by id. No id comes before its parts.

    Args:
        importance: Of each id (vocabulary,).
        counts: How often each id occurs (vocabulary,).
        needed: Ids without which the tokenizer fails.
        common: Ids that hold a coverage: they come before all that are neither.
        parts: Of each id that only its parts lead to, such as the two halves of a byte-pair merge.
    """
    rank = {
        token: place
        for place, token in enumerate(
            sorted(range(len(importance)), key=lambda token: (-float(importance[token]), -int(counts[token]), token))
        )
    }
    wanted = [*needed, *sorted(common, key=rank.__getitem__), *sorted(rank, key=rank.__getitem__)]
    order: dict[int, None] = {}
    for token in wanted:
        for one in _with_parts(token, parts, order):
            order[one] = None
    return tuple(order)


def _with_parts(token: int, parts: Mapping[int, tuple[int, ...]], known: Collection[int]) -> list[int]:
    """Return the ids that ``token`` is made of and that are not ``known``, each after its own parts, itself last."""
    found: list[int] = []
    pending = [token]
    while pending:
        last = pending[-1]
        missing = [part for part in parts.get(last, ()) if part not in known and part not in found]
        if missing:
            pending += missing
        else:
            pending.pop()
            if last not in known and last not in found:
                found.append(last)
    return found
