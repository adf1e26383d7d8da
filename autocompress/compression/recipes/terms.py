"""The table of losses: what each reads of student and teacher, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from autocompress.compression.recipes.features import Feature, FeatureKind, Outputs
from autocompress.compression.recipes.losses import (
    attention_divergence,
    attention_scores,
    cosine_distance,
    match_layers,
    relation_divergence,
    relation_heads,
    score_error,
    soft_cross_entropy,
    soft_targets,
    token_error,
)
from autocompress.compression.recipes.recipe import LayerMap, LossName, teacher_layer
from autocompress.shape import ModelShape

RELATION_HEADS, RELATION_WIDTH = 48, 16
"""At most so many, of so many of the student's channels at least: 48 of 16 are best in the paper, more than the models
have heads (Wang et al. 2021, section 4.5)."""
COFI_LAYERS = 4
"""Layers of the teacher that are learnt, evenly up to the last; 2, 5, 8 and 11 of 12 in the paper."""


@dataclass(frozen=True)
class Pair:
    """A student's and its teacher's shapes, and which layers correspond."""

    student: ModelShape
    teacher: ModelShape
    layer_map: LayerMap = "uniform"

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(the student's layer, the teacher's) from 1, first to last."""
        depth, of = len(self.student.layers), len(self.teacher.layers)
        return tuple((layer, teacher_layer(layer, depth, of, self.layer_map)) for layer in range(1, depth + 1))

    def hidden(self, layer: int) -> tuple[Feature, Feature]:
        """Return what the student's ``layer`` (0: the embeddings) hands on, and the teacher's."""
        return Feature("hidden", layer), Feature("hidden", dict(self.layers)[layer] if layer else 0)

    def last(self, *kinds: FeatureKind) -> tuple[tuple[Feature, Feature], ...]:
        """Return features of the last layer, and of the teacher's."""
        layer, of = self.layers[-1]
        return tuple((Feature(kind, layer), Feature(kind, of)) for kind in kinds)


@dataclass(frozen=True)
class Seen:
    """What a loss reads.

    Attributes:
        student, teacher: What came of the batch.
        labels: Classes (documents,).
        mask: 1 for tokens, 0 for padding (documents x tokens).
        pair: Who they are.
        temperature: Of softened logits.
        widen: Maps hidden channels of the student to the teacher's.
    """

    student: Outputs
    teacher: Outputs
    labels: Tensor
    mask: Tensor
    pair: Pair
    temperature: float
    widen: Callable[[Tensor], Tensor]

    def of(self, pair: tuple[Feature, Feature]) -> tuple[Tensor, Tensor]:
        """Return a feature of the student, and one of the teacher."""
        return self.student.features[pair[0]], self.teacher.features[pair[1]]


Reads: TypeAlias = Sequence[tuple[Feature, Feature]]
"""(the student's, the teacher's)."""


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes:
        compute: What it is, a scalar.
        reads: Features that it compares.
        widens: Whether it maps hidden channels of the student to the teacher's through a learned linear map: always, or
            where widths differ. It is trained with the student and not delivered.
    """

    compute: Callable[[Seen], Tensor]
    reads: Callable[[Pair], Reads] = lambda pair: ()
    widens: Callable[[Pair], bool] = lambda pair: False


def _always(pair: Pair) -> bool:
    return True


def _where_widths_differ(pair: Pair) -> bool:
    return pair.student.hidden != pair.teacher.hidden


def _every_layer(pair: Pair) -> Reads:
    return [pair.hidden(layer) for layer, _ in pair.layers]


def _hidden(seen: Seen) -> Tensor:
    pairs = [seen.of(pair) for pair in _every_layer(seen.pair)]
    return torch.stack([token_error(seen.widen(s), t, seen.mask) for s, t in pairs]).sum()


def _embedding(seen: Seen) -> Tensor:
    student, teacher = seen.of(seen.pair.hidden(0))
    return token_error(seen.widen(student), teacher, seen.mask)


def _cosine(seen: Seen) -> Tensor:
    student, teacher = seen.of(_last_hidden(seen.pair)[0])
    return cosine_distance(seen.widen(student), teacher, seen.mask)


def _first_token(seen: Seen) -> Tensor:
    student, teacher = seen.of(_last_hidden(seen.pair)[0])
    return functional.mse_loss(seen.widen(student[:, 0]), teacher[:, 0])


def _score_reads(pair: Pair) -> Reads:
    return [(Feature(kind, s), Feature(kind, t)) for s, t in pair.layers for kind in ("query", "key")]


def _scores(seen: Seen) -> Tensor:
    losses = []
    for student, teacher in seen.pair.layers:
        ours, theirs = (
            attention_scores(outputs.features[Feature("query", at)], outputs.features[Feature("key", at)], width)
            for outputs, at, width in (
                (seen.student, student, seen.pair.student.layers[student - 1].head_width),
                (seen.teacher, teacher, seen.pair.teacher.layers[teacher - 1].head_width),
            )
        )
        losses.append(score_error(ours, theirs, seen.mask))
    return torch.stack(losses).sum()


def _relations(*kinds: FeatureKind) -> Callable[[Seen], Tensor]:
    def compute(seen: Seen) -> Tensor:
        heads = _last_relation_heads(seen.pair)
        pairs = [seen.of(pair) for pair in seen.pair.last(*kinds)]
        return torch.stack([relation_divergence(s, t, seen.mask, heads) for s, t in pairs]).mean()

    return compute


def _attention(seen: Seen) -> Tensor:
    (student_q, teacher_q), (student_k, teacher_k) = (seen.of(pair) for pair in seen.pair.last("query", "key"))
    heads = relation_heads(student_q.shape[-1], teacher_q.shape[-1], seen.pair.teacher.layers[-1].heads)
    return attention_divergence((student_q, student_k), (teacher_q, teacher_k), seen.mask, heads)


def _last_relation_heads(pair: Pair) -> int:
    student, teacher = pair.layers[-1]
    widths = pair.student.layers[student - 1].attention, pair.teacher.layers[teacher - 1].attention
    return relation_heads(*widths, max(1, min(RELATION_HEADS, widths[0] // RELATION_WIDTH)))


def _last_hidden(pair: Pair) -> Reads:
    return pair.last("hidden")


def _layer_reads(pair: Pair) -> Reads:
    depth, of = len(pair.student.layers), len(pair.teacher.layers)
    theirs = [Feature("hidden", teacher_layer(n, min(COFI_LAYERS, of), of)) for n in range(1, min(COFI_LAYERS, of) + 1)]
    return [(Feature("hidden", layer), feature) for layer in range(1, depth + 1) for feature in theirs]


def _layers(seen: Seen) -> Tensor:
    """Return how far the best layers are from the teacher's, the mean over these (CoFi, equation 6)."""
    reads = _layer_reads(seen.pair)
    ours, theirs = (dict.fromkeys(features) for features in zip(*reads, strict=True))
    widened = [seen.widen(seen.student.features[feature]) for feature in ours]
    errors = torch.stack(
        [
            torch.stack([token_error(each, seen.teacher.features[feature], seen.mask) for each in widened])
            for feature in theirs
        ]
    )
    chosen = match_layers(errors.detach())
    return errors[range(len(chosen)), list(chosen)].mean()


TERMS: dict[LossName, Loss] = {
    "labels": Loss(lambda seen: functional.cross_entropy(seen.student.logits, seen.labels)),
    "logits": Loss(lambda seen: soft_targets(seen.student.logits, seen.teacher.logits, seen.temperature)),
    "soft_cross_entropy": Loss(lambda seen: soft_cross_entropy(seen.student.logits, seen.teacher.logits)),
    "cosine": Loss(_cosine, _last_hidden, _where_widths_differ),
    "embedding": Loss(_embedding, lambda pair: [pair.hidden(0)], _always),
    "hidden": Loss(_hidden, _every_layer, _always),
    "first_token": Loss(_first_token, _last_hidden, _where_widths_differ),
    "scores": Loss(_scores, _score_reads),
    "attention": Loss(_attention, lambda pair: pair.last("query", "key")),
    "values": Loss(_relations("value"), lambda pair: pair.last("value")),
    "relations": Loss(_relations("query", "key", "value"), lambda pair: pair.last("query", "key", "value")),
    "layers": Loss(_layers, _layer_reads, _always),
}
"""Name -> loss."""
