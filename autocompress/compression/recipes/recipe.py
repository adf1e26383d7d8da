"""Recipes as values: which losses count how much, in which phases, and who learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, TypeAlias

from autocompress.training.loop import Schedule

LossName: TypeAlias = Literal[
    "labels",
    "logits",
    "soft_cross_entropy",
    "cosine",
    "embedding",
    "hidden",
    "first_token",
    "scores",
    "attention",
    "values",
    "relations",
    "layers",
]
"""Key of ``terms.TERMS``."""
LayerMap: TypeAlias = Literal["uniform", "top", "bottom"]
"""Which of the teacher's layers each of the student's learns."""
LessonName: TypeAlias = Literal["task", "varied", "text"]
"""Documents that a phase reads: of the training split, the same with words replaced (``augmentation``), or unlabelled
ones, some of whose tokens are masked (``masking``): these are then what ``labels`` and ``logits`` are about."""
ANSWERS: frozenset[LossName] = frozenset({"labels", "logits", "soft_cross_entropy"})
"""Losses of what a model answers; all others read what it computes token by token."""


@dataclass(frozen=True)
class Term:
    """A loss and how much it counts."""

    loss: LossName
    weight: float = 1.0


@dataclass(frozen=True)
class Phase:
    """Training on one weighted sum of losses.

    Attributes:
        terms: The sum.
        share: Of the steps of all phases (0 to 1).
        schedule: Of the rate after its warm-up.
        lesson: What is read.
    """

    terms: tuple[Term, ...]
    share: float = 1.0
    schedule: Schedule = "linear"
    lesson: LessonName = "task"


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes:
        phases: One after the other; shares add up to 1.
        temperature: Of softened logits (> 0).
        layer_map: Of losses that compare layer by layer.
        integrates: Whether the student begins with the teacher's task layers (``integration``).
        teacher_rate: Peak rate of the teacher, as a multiple of the student's; at 0 the teacher stays as it is.
        two_way: Whether a teacher that learns looks at the student's answers beside the labels.
        dropout: Whether the student reads with dropout, as it did when it was pretrained. Teachers never do.
    """

    phases: tuple[Phase, ...]
    temperature: float = 2.0
    layer_map: LayerMap = "uniform"
    integrates: bool = False
    teacher_rate: float = 0.0
    two_way: bool = True
    dropout: bool = True

    @property
    def losses(self) -> frozenset[LossName]:
        """Those of all phases."""
        return frozenset(term.loss for phase in self.phases for term in phase.terms)

    @property
    def compares_tokens(self) -> bool:
        """Whether a loss reads what models compute token by token, so that a student must keep all tokens."""
        return not self.losses <= ANSWERS

    def steps(self, total: int) -> tuple[int, ...]:
        """Return the steps of each phase, ``total`` together."""
        shares = [sum(phase.share for phase in self.phases[:count]) for count in range(len(self.phases) + 1)]
        ends = [round(total * share) for share in shares]
        return tuple(end - start for start, end in zip(ends, ends[1:], strict=False))

    def without(self, *losses: LossName) -> Recipe:
        """Return the recipe less these losses, and less phases of which nothing is left, to whose share others grow."""
        phases = [replace(phase, terms=tuple(t for t in phase.terms if t.loss not in losses)) for phase in self.phases]
        left = [phase for phase in phases if phase.terms]
        total = sum(phase.share for phase in left)
        return replace(self, phases=tuple(replace(phase, share=phase.share / total) for phase in left))


def teacher_layer(layer: int, depth: int, teacher_depth: int, layer_map: LayerMap = "uniform") -> int:
    """Return which of the teacher's layers (from 1) the student's ``layer`` (from 1) of ``depth`` learns.

    TinyBERT (Jiao et al. 2020, sections 3.1 and 4.5): ``uniform`` is g(m) = m N / M, here rounded up where M does not
    divide N; ``top`` and ``bottom`` are the last and the first M layers.
    """
    if layer_map == "uniform":
        return ceil(layer * teacher_depth / depth)
    return layer + (teacher_depth - depth if layer_map == "top" else 0)
