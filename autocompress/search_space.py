"""What a search may choose from, as a run file says it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, field_validator

from autocompress.devices.validation import Section
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
)
from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits, WeightGroup

COVERAGE = 0.95
"""Least share of the training documents' tokens that a smaller vocabulary still has; the others fall into pieces."""


def _check_multiple(value: object) -> object:
    if value != "auto" and not (isinstance(value, int) and value > 0):
        raise ValueError("Write a number above 0, or auto.")
    return value


Count = Annotated[int, Field(gt=0)]
Ratio = Annotated[float, Field(gt=0, le=1)]
T = TypeVar("T")
Multiple = Annotated[int | Literal["auto"], BeforeValidator(_check_multiple)]
Choices: TypeAlias = Annotated[tuple[T, ...], Field(min_length=1)]


class Space(Section):
    """What the search may choose from."""

    depth: Choices[Count] | None = Field(
        default=None, description="Numbers of layers; if left out, from a third of the teacher's to all."
    )
    depth_selection: Choices[LayerSelection] = Field(
        default=("uniform",), description="How the layers that stay are chosen."
    )
    hidden_keep: Choices[Ratio] = Field(default=(1.0,), description="Shares of the hidden channels.")
    heads_keep: Choices[Ratio] = Field(default=(0.5, 0.75, 1.0), description="Shares of a layer's heads.")
    ffn_keep: Choices[Ratio] = Field(
        default=(0.25, 0.5, 0.75, 1.0), description="Shares of each layer's feed-forward neurons."
    )
    attention_bits: Choices[Bits] = Field(
        default=(32, 8, 4), description="Of attention weights; ONNX Runtime stores those of 3 bits as 4."
    )
    ffn_bits: Choices[Bits] = Field(default=(32, 8, 4), description="Of feed-forward weights, likewise.")
    head_bits: Choices[Bits] = Field(default=(32,), description="Of the linears of the head, likewise.")
    embedding_bits: Choices[EmbeddingBits] = Field(default=(32, 8, 4), description="Of the token embedding.")
    bits_allocation: Choices[Allocation] = Field(
        default=("uniform",),
        description="Whether all layers have the bits above, or share as many bytes by how much each needs them.",
    )
    vocabulary_keep: Choices[Ratio] = Field(
        default=(1.0,), description="Shares of the tokens; students get a tokenizer of these alone."
    )
    vocabulary_coverage: Ratio = Field(
        default=COVERAGE, description="Least share of the tokens in the training documents that must be among them."
    )
    positions: Positions = Field(
        default="all", description="Positions of students: all that the model has, or task.max_tokens (task)."
    )
    recipe: Choices[RecipeName] = Field(default=("logits",), description="How candidates and finalists are trained.")
    embedding_rank: Choices[Annotated[int, Field(ge=0)]] = Field(
        default=(0,), description="Channels of a factorised token embedding; 0 leaves it whole."
    )
    tokens_keep: Choices[Ratio | Literal["all"]] = Field(
        default=(1.0,),
        description="Shares of task.max_tokens that reach the last layer, which then passes on the first token;"
        " all leaves every token in every layer.",
    )
    heads_order: Choices[HeadCriterion] = Field(
        default=("kron_obs",), description="What heads are ordered by; the last go."
    )
    neurons_order: Choices[Criterion] = Field(default=("kron_obs",), description="The same for feed-forward neurons.")
    allocation: Choices[Allocation] = Field(
        default=("global",), description="Whether layers have equal shares or compete."
    )
    repair: Choices[RepairKind] = Field(
        default=("least_squares",), description="How weights make up for what was removed, before any training."
    )
    repair_batches: Count = Field(default=8, description="Training batches that a repair reads, without their labels.")
    rounding: Choices[Rounding] = Field(
        default=("nearest",),
        description="How weights of 8 bits and fewer are rounded; all ways but nearest read documents.",
    )
    rounding_batches: Count = Field(
        default=8, description="Training batches that rounding and fixed ranges read, without their labels."
    )
    activations: Choices[Activations] = Field(
        default=("dynamic",),
        description="How 8-bit weights read activations: over ranges found as the model runs, or fixed beforehand,"
        " without or with channels that are smoothed, or with a scale a token and group, as fewer bits do.",
    )
    weight_group: Choices[WeightGroup] = Field(
        default=(WEIGHT_GROUP,),
        description="Input channels that share a scale: of weights below 8 bits, and of 8 bits read a token.",
    )
    zero_points: Choices[bool] = Field(
        default=(False,), description="Whether groups of weights below 8 bits have a zero point."
    )
    ranges: RangeKind = Field(default="percentile", description="How ranges of activations are fixed.")
    smoothing: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Alpha of SmoothQuant: how much of the outliers moves from activations to weights."
    )
    per_layer: bool = Field(
        default=False,
        description="Whether each layer has heads, neurons and bits of its own; no allocation then shares them out.",
    )
    align: Multiple = Field(
        default=32, description="Neurons and hidden channels are kept in multiples of this; auto: of a tile's width."
    )

    @field_validator("*")
    @classmethod
    def _no_choice_twice(cls, value: object) -> object:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("Write each choice once.")
        return value
