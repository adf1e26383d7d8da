"""Quantization: linear weights and the token table get fewer bits.

16 bits: bfloat16, half to even; activations stay floats.
8 bits: symmetric, one scale an output channel; activations are quantized to uint8, over ranges that are found as the
model runs or fixed by calibration (``activations.ranges``). With activations a token, everything is as at 4 bits.
4 bits: symmetric or, with zero points, not; one scale a group of 32, 64 or 128 input channels, chosen for the least
squared error among clipped ranges; activations of linear maps are quantized to int8, one scale a token and group, as
the model runs.
3 bits: the same with levels -4..3, not for the token table.
2 bits: the same with levels -2..1, not for the token table; the scale is searched over wider ranges and both signs.

Scales are those of rounding to nearest (``rounding.grids``); ``rounding.levels`` says which level a linear weight gets.
The token table is rounded to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.activations.ranges import Fixing, check_finite
from autocompress.compression.method import Context, Space, ask_each
from autocompress.compression.rounding.grids import quantize_rows
from autocompress.compression.rounding.levels import round_head, round_layers, round_to_nearest
from autocompress.compression.rounding.sensitivity import share_bits
from autocompress.errors import ConfigError
from autocompress.models.adapter import refuse_of_images
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedEmbedding
from autocompress.plan import Allocation, RangeKind, Rounding, Suggest
from autocompress.shape import (
    WEIGHT_GROUP,
    Activations,
    Bits,
    EmbeddingBits,
    LayerBits,
    ModelShape,
    WeightGrid,
    WeightGroup,
    by_block,
)
from autocompress.training.batches import LabelledBatch


@dataclass(frozen=True)
class QuantizeStep:
    """To how many bits, and how.

    Attributes:
        attention_in_bits, attention_out_bits, ffn_in_bits, ffn_out_bits: Of each layer's weights; 32 leaves floats.
        embedding_bits: Of the token table.
        rounding: How the levels of linear weights are chosen; at 16 bits they are the nearest.
        calibration_batches: Training batches that rounding and ranges read, without their labels.
        seed: Which ones.
        activations: How linears of 8 bits read; see ``shape.Activations``.
        ranges: How ranges are fixed, where they are.
        smoothing: Alpha of SmoothQuant, 0 to 1, where activations are ``smoothed``.
        weight_group, zero_points: Of weights in groups; see ``shape.WeightGrid``.
        head_bits: Of the head's linears.
    """

    method: ClassVar[str] = "quantize"
    attention_in_bits: tuple[Bits, ...]
    attention_out_bits: tuple[Bits, ...]
    ffn_in_bits: tuple[Bits, ...]
    ffn_out_bits: tuple[Bits, ...]
    embedding_bits: EmbeddingBits
    rounding: Rounding = "nearest"
    calibration_batches: int = 8
    seed: int = 0
    activations: Activations = "dynamic"
    ranges: RangeKind = "percentile"
    smoothing: float = 0.5
    weight_group: WeightGroup = WEIGHT_GROUP
    zero_points: bool = False
    head_bits: Bits = 32

    @property
    def layers(self) -> tuple[LayerBits, ...]:
        """Bits of each layer, as ``LayerShape.bits`` has them."""
        widths = self.attention_in_bits, self.attention_out_bits, self.ffn_in_bits, self.ffn_out_bits
        return tuple(zip(*widths, strict=True))

    @property
    def linear_bits(self) -> frozenset[Bits]:
        """Widths that linears of the layers have."""
        return frozenset(bits for layer in self.layers for bits in layer)

    def grid_at(self, bits: Bits) -> WeightGrid | None:
        """Return how linears of so many bits are stored in groups; ``None``: in none."""
        return WeightGrid(self.weight_group, self.zero_points).at(bits, self.activations)

    @property
    def fixing(self) -> Fixing | None:
        """How ranges are fixed; ``None`` where no 8-bit weights read activations, or ranges are found as they run."""
        if self.activations not in ("static", "smoothed") or 8 not in self.linear_bits:
            return None
        return Fixing(self.ranges, self.smoothing if self.activations == "smoothed" else None)


STEP = QuantizeStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> QuantizeStep:
    """Choose the bits of attention, feed-forward, embedding and head, and how they are reached.

    They are each layer's own or the same in every layer or, with the allocation ``global``, all groups of linears share
    the bytes that these would take (``rounding.sensitivity``). Where no data are read, the step does not say how many.
    """
    depth = len(shape.layers)
    attention = ask_each(trial, "attention_bits", space.attention_bits, space, depth)
    ffn = ask_each(trial, "ffn_bits", space.ffn_bits, space, depth)
    image = shape.pixels is not None
    embedding: EmbeddingBits = 32 if image else trial.suggest_categorical("embedding_bits", space.embedding_bits)
    head: Bits = trial.suggest_categorical("head_bits", space.head_bits)
    rounding: Rounding = trial.suggest_categorical("rounding", space.rounding)
    group: WeightGroup = trial.suggest_categorical("weight_group", space.weight_group)
    grid = WeightGrid(group, trial.suggest_categorical("zero_points", space.zero_points))
    activations: Activations = trial.suggest_categorical("activations", space.activations)
    step = QuantizeStep(*by_block(attention, ffn), embedding, head_bits=head)
    if not space.own_layers:
        allocation: Allocation = trial.suggest_categorical("bits_allocation", space.bits_allocation)
        if allocation == "global" and space.sensitivity:
            widths = attention[0], ffn[0]
            shared = share_bits(shape, space.sensitivity, *widths, space.stored_as, grid, activations)
            step = QuantizeStep(*shared, embedding, head_bits=head)
    if rounding != "nearest" and min(head, *step.linear_bits) <= 8:
        step = replace(step, rounding=rounding)
    if activations != "dynamic" and 8 in step.linear_bits:
        alpha = space.smoothing if activations == "smoothed" else step.smoothing
        ranges = step.ranges if activations == "token" else space.ranges
        step = replace(step, activations=activations, ranges=ranges, smoothing=alpha)
    found = [each for bits in step.linear_bits if (each := grid.at(bits, step.activations))]
    if found:
        zeros = any(each.zero_points for each in found)
        step = replace(step, weight_group=group, zero_points=zeros)
    if step.rounding == "nearest" and step.fixing is None:
        return step
    return replace(step, calibration_batches=space.rounding_batches, seed=space.seed)


def reshape(shape: ModelShape, step: QuantizeStep) -> ModelShape:
    """Return ``shape`` with the bits of ``step``, and activations as 8-bit weights read them then.

    Raises:
        UnsupportedError: The model reads images, and a token table of fewer bits is asked for.
    """
    if shape.pixels is not None and step.embedding_bits != 32:
        refuse_of_images(f"a token table of {step.embedding_bits} bits")
    layers = tuple(layer.with_bits(*bits) for layer, bits in zip(shape.layers, step.layers, strict=True))
    found = replace(shape, layers=layers, embedding_bits=step.embedding_bits, head_bits=step.head_bits)
    return found.with_activations(step.activations).with_grid(WeightGrid(step.weight_group, step.zero_points))


def apply(model: nn.Module, step: QuantizeStep, context: Context) -> nn.Module:
    """Replace floats by what fewer bits hold: the token table first, so that layers are rounded behind it.

    Raises:
        ConfigError: The rounding or the ranges read documents, and there are none; or ranges are to be fixed of a model
            that gives no numbers.
    """
    fixing = step.fixing
    reads = step.rounding != "nearest" or fixing is not None
    batches = _documents(model, step, context) if reads else []
    adapter = adapter_of(model)
    if step.embedding_bits != 32:
        table = adapter.token_embedding(model)
        assert isinstance(table, nn.Embedding)
        levels, scale = quantize_rows(table.weight.detach(), step.embedding_bits, row_scale_dim=1)
        adapter.replace_token_embedding(model, QuantizedEmbedding(levels, scale, step.embedding_bits))
    if reads:
        round_layers(model, step.layers, step.rounding, batches, fixing=fixing, grid_at=step.grid_at)
    else:
        for layer, widths in zip(adapter.layers(model), step.layers, strict=True):
            for paths, bits in zip(layer.groups, widths, strict=True):
                for path in paths:
                    round_to_nearest(layer, path, bits, grid_at=step.grid_at)
    round_head(model, step.head_bits, step.rounding, batches)
    return model


def _documents(model: nn.Module, step: QuantizeStep, context: Context) -> list[LabelledBatch]:
    batches: list[LabelledBatch] = list(context.batches(step.calibration_batches, step.seed))
    if not any(bool(batch.attention_mask.any()) for batch in batches):
        raise ConfigError(
            f"Weights are rounded by {step.rounding}, of activations that are {step.activations},"
            " and there are no calibration documents.",
            right="Every rounding but nearest and activations over fixed ranges read at least one training batch.",
            next_step="Set calibration_batches in the plan's quantize step above 0.",
        )
    if step.fixing is not None:
        check_finite(*model.parameters())
    return batches
