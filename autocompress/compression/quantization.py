"""Quantization: linear weights and the token table get fewer bits.

16 bits: bfloat16, half to even; activations stay floats.
8 bits: symmetric, one scale an output channel; activations are quantized to uint8 as the model runs.
4 bits: symmetric, one scale a group of 32 input channels, chosen for the least squared error among clipped ranges;
activations of linear maps are quantized to int8, one scale a token and group, as the model runs.
3 bits: the same with levels -4..3, not for the token table.
2 bits: the same with levels -2..1, not for the token table; the scale is searched over wider ranges and both signs.

Scales are those of rounding to nearest (``grids``); which level a linear weight gets, ``rounding`` says. The token
table is rounded to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.grids import quantize_rows
from autocompress.compression.method import Context, Space
from autocompress.compression.rounding import round_layers, round_to_nearest
from autocompress.compression.sensitivity import share_bits
from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedEmbedding
from autocompress.plan import Rounding, Suggest
from autocompress.shape import Bits, EmbeddingBits, ModelShape


@dataclass(frozen=True)
class QuantizeStep:
    """To how many bits, and how.

    Attributes:
        attention_bits, ffn_bits: Of each layer's weights; 32 leaves floats.
        embedding_bits: Of the token table.
        rounding: How the levels of linear weights are chosen; at 16 bits they are the nearest.
        calibration_batches: Training batches that ``optq`` and ``aespa`` read, without their labels.
        seed: Which ones.
    """

    method: ClassVar[str] = "quantize"
    attention_bits: tuple[Bits, ...]
    ffn_bits: tuple[Bits, ...]
    embedding_bits: EmbeddingBits
    rounding: Rounding = "nearest"
    calibration_batches: int = 8
    seed: int = 0


STEP = QuantizeStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> QuantizeStep:
    """Choose the bits of attention, feed-forward and embedding, and how they are reached.

    They are the same in every layer or, with the allocation ``global``, layers share the bytes that these would take
    (``sensitivity``). Where no data are read, the step does not say how many.
    """
    attention: Bits = trial.suggest_categorical("attention_bits", space.attention_bits)
    ffn: Bits = trial.suggest_categorical("ffn_bits", space.ffn_bits)
    embedding: EmbeddingBits = trial.suggest_categorical("embedding_bits", space.embedding_bits)
    rounding: Rounding = trial.suggest_categorical("rounding", space.rounding)
    depth = len(shape.layers)
    shared = (attention,) * depth, (ffn,) * depth
    if trial.suggest_categorical("bits_allocation", space.bits_allocation) == "global" and space.sensitivity:
        shared = share_bits(shape, space.sensitivity, attention, ffn, space.stored_as)
    nearest = QuantizeStep(*shared, embedding)
    if rounding == "nearest" or min(shared[0] + shared[1]) > 8:
        return nearest
    return replace(nearest, rounding=rounding, calibration_batches=space.rounding_batches, seed=space.seed)


def reshape(shape: ModelShape, step: QuantizeStep) -> ModelShape:
    """Return ``shape`` with the bits of ``step``."""
    triples = zip(shape.layers, step.attention_bits, step.ffn_bits, strict=True)
    layers = tuple(replace(layer, attention_bits=a, ffn_bits=f) for layer, a, f in triples)
    return replace(shape, layers=layers, embedding_bits=step.embedding_bits)


def apply(model: nn.Module, step: QuantizeStep, context: Context) -> nn.Module:
    """Replace floats by what fewer bits hold: the token table first, so that layers are rounded behind it.

    Raises:
        ConfigError: The rounding reads documents, and there are none.
    """
    adapter = adapter_of(model)
    if step.embedding_bits != 32:
        table = adapter.token_embedding(model)
        assert isinstance(table, nn.Embedding)
        levels, scale = quantize_rows(table.weight.detach(), step.embedding_bits, row_scale_dim=1)
        adapter.replace_token_embedding(model, QuantizedEmbedding(levels, scale, step.embedding_bits))
    pairs = tuple(zip(step.attention_bits, step.ffn_bits, strict=True))
    if step.rounding != "nearest":
        batches = list(context.batches(step.calibration_batches, step.seed))
        if not batches:
            raise ConfigError(
                f"Weights are to be rounded by {step.rounding}, and there are no calibration documents.",
                right="It reads at least one training batch.",
                next_step="Set calibration_batches in the plan's quantize step, or its rounding to nearest.",
            )
        round_layers(model, pairs, step.rounding, batches)
        return model
    for layer, (attention_bits, ffn_bits) in zip(adapter.layers(model), pairs, strict=True):
        for path in layer.attention_linears:
            round_to_nearest(layer, path, attention_bits)
        for path in layer.ffn_linears:
            round_to_nearest(layer, path, ffn_bits)
    return model
