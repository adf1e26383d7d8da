"""What a compression method is, and what it may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from autocompress.compression.recipes.lessons import Answering, Lesson
from autocompress.compression.recipes.recipe import LessonName
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.errors import UnsupportedError
from autocompress.plan import (
    Allocation,
    Criterion,
    HeadCriterion,
    LayerSelection,
    Positions,
    RangeKind,
    RecipeName,
    RepairKind,
    Rounding,
    Step,
    Suggest,
    T,
)
from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits, ModelShape, TokenShare, WeightGroup
from autocompress.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class LayerImportance:
    """Importance of each head and each neuron of one layer, the most important first."""

    heads: tuple[float, ...]
    neurons: tuple[float, ...]


@dataclass(frozen=True)
class LayerSensitivity:
    """How far the logits move when one group of a layer's linears gets these bits, in nats."""

    attention_in: Mapping[Bits, float]
    attention_out: Mapping[Bits, float]
    ffn_in: Mapping[Bits, float]
    ffn_out: Mapping[Bits, float]

    @property
    def groups(self) -> tuple[Mapping[Bits, float], ...]:
        """All four, as ``LayerShape.bits`` has them."""
        return self.attention_in, self.attention_out, self.ffn_in, self.ffn_out


@dataclass(frozen=True)
class Space:
    """What a search may choose from.

    Attributes:
        depth: Numbers of layers.
        depth_selection: Ways to choose the layers that stay.
        layer_orders: Of each way that is measured, all layers, the first to go first (``ranking.layer_importance``).
        hidden_keep: Shares of the hidden channels, 0 to 1.
        heads_keep: Shares of each layer's heads, 0 to 1.
        ffn_keep: Shares of each layer's feed-forward neurons, 0 to 1.
        attention_bits, ffn_bits, embedding_bits, head_bits: Bit widths; the linears of a block get the same.
        align: Neurons and hidden channels are kept in multiples of this many, so that no vector lane is left empty.
        vocabulary_keep: Shares of the tokens, 0 to 1.
        embedding_rank: Channels of each token's row that a linear map expands; 0: the whole row.
        bits_allocation: Whether all layers have equal bits, or share as many bytes as they would take then.
        sensitivity: Of the layers that are left, at all bits of their groups; only ``global`` bits read it, and are
            equal without.
        stored_as: Widths that the engine stores as others (``engines.STORED_AS``): what bytes to share.
        tokens_keep: Shares of the tokens that reach the last layer; see ``shape.TokenShare``.
        max_tokens: Tokens of the longest document; 0: as many as the teacher has positions.
        positions: Those that students have: all of the teacher's, or as many as the longest document has tokens.
        recipe: How candidates are distilled, keys of ``recipes.table.RECIPES``.
        distill_steps, learning_rate, seed: Of that.
        quantization_aware_steps: Of training after rounding.
        heads_order, neurons_order: Criteria of importance, keys of ``order.CRITERIA``.
        allocation: Whether layers keep equal shares of their units, or compete for as many.
        repair, repair_batches: Kinds of ``repair``, and the calibration batches that it reads.
        rounding, rounding_batches: Ways to round weights, and the calibration batches that they read.
        activations: How linears of 8 bits read; see ``shape.Activations``.
        weight_group, zero_points: Of weights in groups; see ``shape.WeightGrid``.
        ranges, smoothing: Of activations whose range is fixed; see ``quantization.QuantizeStep``.
        importance: Of the teacher's layers, by criterion; only ``global`` allocation reads it, and is uniform without.
        layers: The same of the layers that are left, by the chosen criteria: what ``methods.draw`` makes of it.
        own_layers: Which of the start's layers are left, where each has heads, neurons and bits of its own, and none
            shares or competes; empty: all have the same shares and widths.
    """

    depth: tuple[int, ...]
    heads_keep: tuple[float, ...] = (0.5, 0.75, 1.0)
    ffn_keep: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    attention_bits: tuple[Bits, ...] = (32, 8, 4)
    ffn_bits: tuple[Bits, ...] = (32, 8, 4)
    embedding_bits: tuple[EmbeddingBits, ...] = (32, 8, 4)
    align: int = 32
    recipe: tuple[RecipeName, ...] = ("logits",)
    distill_steps: int = 0
    learning_rate: float = 1e-4
    seed: int = 0
    depth_selection: tuple[LayerSelection, ...] = ("uniform",)
    layer_orders: Mapping[LayerSelection, tuple[int, ...]] = field(default_factory=dict)
    hidden_keep: tuple[float, ...] = (1.0,)
    heads_order: tuple[HeadCriterion, ...] = ("fisher",)
    neurons_order: tuple[Criterion, ...] = ("fisher",)
    allocation: tuple[Allocation, ...] = ("uniform",)
    repair: tuple[RepairKind, ...] = ("none",)
    repair_batches: int = 8
    rounding: tuple[Rounding, ...] = ("nearest",)
    rounding_batches: int = 8
    importance: Mapping[Criterion, tuple[LayerImportance, ...]] = field(default_factory=dict)
    layers: tuple[LayerImportance, ...] = ()
    vocabulary_keep: tuple[float, ...] = (1.0,)
    embedding_rank: tuple[int, ...] = (0,)
    bits_allocation: tuple[Allocation, ...] = ("uniform",)
    sensitivity: tuple[LayerSensitivity, ...] = ()
    stored_as: Mapping[Bits, Bits] = field(default_factory=dict)
    tokens_keep: tuple[TokenShare, ...] = ("all",)
    max_tokens: int = 0
    positions: Positions = "all"
    activations: tuple[Activations, ...] = ("dynamic",)
    ranges: RangeKind = "percentile"
    smoothing: float = 0.5
    weight_group: tuple[WeightGroup, ...] = (WEIGHT_GROUP,)
    zero_points: tuple[bool, ...] = (False,)
    quantization_aware_steps: int = 0
    head_bits: tuple[Bits, ...] = (32,)
    own_layers: tuple[int, ...] = ()


def ask_each(trial: Suggest, name: str, choices: Sequence[T], space: Space, layers: int) -> tuple[T, ...]:
    """Return a choice for each of ``layers`` layers: one for all or, of ``space.own_layers``, one a layer."""
    if not space.own_layers:
        return (trial.suggest_categorical(name, choices),) * layers
    return tuple(trial.suggest_categorical(of_layer(name, index), choices) for index in space.own_layers)


def of_layer(name: str, index: int) -> str:
    """Return what a choice is called that one of the start's layers has for itself."""
    return f"{name}.{index}"


@dataclass(frozen=True)
class Context:
    """What ``apply`` may use beside the model.

    Attributes:
        batches: ``batches(steps, seed)`` yields that many training batches.
        teacher: The teacher, and what it makes of training batches.
        on_step: Called with (step, steps, loss) while something trains.
        rankings: ``rankings(criterion)`` is the ``importance.LayerRanking`` of each of the teacher's layers.
        documents: ``documents(batches, seed)`` are ``sublayers.Documents`` that went through the dense model.
        token_order: ``token_order(vocabulary)`` are the ids of the teacher's tokens, the ones to keep longest first; by
            default as they are numbered.
        token_counts: ``token_counts(vocabulary)`` is how often each of the student's tokens occurs in its training
            documents (vocabulary,); by default once.
        unrounded: The model as it is before its weights are rounded, where it is at hand.
        varied: Training documents with words replaced (``recipes.augmentation``), as a lesson.
        text: Unlabelled text with tokens to guess.
        checkpoint: Where trainings keep their states, each phase of a recipe its own; ``None``: nowhere.
        device: Where students are trained.
        mixed_precision: Whether they are trained in bfloat16 there, see ``training.device``.
    """

    batches: Callable[[int, int], Iterable[Any]]
    teacher: TeacherOutputs
    on_step: Callable[[int, int, float], None] | None = field(default=None, compare=False)
    rankings: Callable[[Criterion], Any] = field(default=lambda criterion: _unmeasured("ranking of units"))
    documents: Callable[[int, int], Any] = field(default=lambda batches, seed: _unmeasured("calibration documents"))
    token_order: Callable[[int], Sequence[int]] = range
    token_counts: Callable[[int], Tensor] = torch.ones
    unrounded: nn.Module | None = field(default=None, compare=False)
    varied: Callable[[], Lesson] = field(default=lambda: _unmeasured("data augmentation"))
    text: Callable[[], Lesson] = field(default=lambda: _unmeasured("text with tokens to guess"))
    checkpoint: Checkpoint | None = None
    device: torch.device = torch.device("cpu")
    mixed_precision: bool = True

    def lesson(self, name: LessonName) -> Lesson:
        """Return what a phase of a recipe reads.

        Raises:
            UnsupportedError: It is not at hand.
        """
        lessons = {"task": lambda: Answering(self.batches, self.teacher), "varied": self.varied, "text": self.text}
        return lessons[name]()


class Method(Protocol):
    """One way to make a model smaller; a module of functions satisfies it."""

    @property
    def STEP(self) -> type[Step]:  # noqa: N802 - a constant of each method's module
        """The method's step class."""

    def suggest(self, trial: Suggest, shape: ModelShape, space: Space) -> Any:
        """Return a step for a model of ``shape``, asking ``trial`` for each choice."""

    def reshape(self, shape: ModelShape, step: Any) -> ModelShape:
        """Return the shape that ``apply`` would leave."""

    def apply(self, model: nn.Module, step: Any, context: Context) -> nn.Module:
        """Change ``model`` in place, truly, and return it."""


def _unmeasured(what: str) -> NoReturn:
    raise UnsupportedError(
        f"The plan needs a {what}, and nothing here measures it.",
        right="The context of a run holds it.",
        next_step="Make the student by a search or by pipeline.candidates.Students.",
    )
