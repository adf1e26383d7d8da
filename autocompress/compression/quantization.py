"""Quantization: linear weights and the token table get fewer bits, by rounding to nearest.

16 bits: bfloat16, half to even; activations stay floats.
8 bits: symmetric, one scale an output channel; activations are quantized to uint8 as the model runs.
4 bits: symmetric, one scale a group of 32 input channels, chosen for the least squared error among clipped ranges;
activations of linear maps are quantized to int8, one scale a token and group, as the model runs.
2 bits: the same with levels -2..1, not for the token table; the scale is searched over wider ranges and both signs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from autocompress.compression.method import Context, Space
from autocompress.models.adapter import LayerModules
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedEmbedding, QuantizedLinear
from autocompress.plan import Suggest
from autocompress.shape import WEIGHT_GROUP, Bits, EmbeddingBits, ModelShape

CLIP_RATIOS = tuple(1.0 - 0.05 * step for step in range(8))
TWO_BIT_RATIOS = tuple(sign * 0.1 * step for step in range(2, 11) for sign in (1, -1))
"""Scales tried at 2 bits, as shares of a group's largest magnitude: at 1 both ends reach it, at 0.5 only level -2."""


@dataclass(frozen=True)
class QuantizeStep:
    """Bits of each layer's attention and feed-forward weights, and of the token table; 32 leaves floats."""

    method: ClassVar[str] = "quantize"
    attention_bits: tuple[Bits, ...]
    ffn_bits: tuple[Bits, ...]
    embedding_bits: EmbeddingBits


STEP = QuantizeStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> QuantizeStep:
    """Choose the bits of attention, feed-forward and embedding, the same in every layer."""
    attention: Bits = trial.suggest_categorical("attention_bits", space.attention_bits)
    ffn: Bits = trial.suggest_categorical("ffn_bits", space.ffn_bits)
    embedding: EmbeddingBits = trial.suggest_categorical("embedding_bits", space.embedding_bits)
    depth = len(shape.layers)
    return QuantizeStep((attention,) * depth, (ffn,) * depth, embedding)


def reshape(shape: ModelShape, step: QuantizeStep) -> ModelShape:
    """Return ``shape`` with the bits of ``step``."""
    triples = zip(shape.layers, step.attention_bits, step.ffn_bits, strict=True)
    layers = tuple(replace(layer, attention_bits=a, ffn_bits=f) for layer, a, f in triples)
    return replace(shape, layers=layers, embedding_bits=step.embedding_bits)


def apply(model: nn.Module, step: QuantizeStep, context: Context) -> nn.Module:
    """Replace floats by what fewer bits hold."""
    adapter = adapter_of(model)
    triples = zip(adapter.layers(model), step.attention_bits, step.ffn_bits, strict=True)
    for layer, attention_bits, ffn_bits in triples:
        _quantize_linears(layer, layer.attention_linears, attention_bits)
        _quantize_linears(layer, layer.ffn_linears, ffn_bits)
    if step.embedding_bits != 32:
        table = adapter.token_embedding(model)
        assert isinstance(table, nn.Embedding)
        levels, scale = quantize_rows(table.weight.detach(), step.embedding_bits, row_scale_dim=1)
        adapter.replace_token_embedding(model, QuantizedEmbedding(levels, scale, step.embedding_bits))
    return model


def _quantize_linears(layer: LayerModules, paths: tuple[str, ...], bits: Bits) -> None:
    if bits == 32:
        return
    for path in paths:
        linear = layer.get(path)
        assert isinstance(linear, nn.Linear)
        levels, scale = quantize_rows(linear.weight.detach(), bits)
        layer.replace(path, QuantizedLinear(levels, scale, linear.bias.detach().clone(), bits))


def quantize_rows(weight: Tensor, bits: Bits, row_scale_dim: int = 0) -> tuple[Tensor, Tensor | None]:
    """Round the rows of ``weight`` (rows x channels) to levels.

    Args:
        weight: Floats.
        bits: 16: no scale. 8: one scale a row. 4 and 2: one scale a row and group of 32 channels.
        row_scale_dim: At 8 bits, 0 gives scales of shape (rows,), 1 of (rows x 1).

    Returns:
        (levels as int8, scales as f32), or (values as bfloat16, None) at 16 bits.
    """
    rows, channels = weight.shape
    if bits == 16:
        return weight.to(torch.bfloat16), None
    if bits == 8:
        scale = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127.0
        levels = torch.round(weight / scale).clamp(-127, 127).to(torch.int8)
        return levels, scale if row_scale_dim else scale[:, 0]
    padded = nn.functional.pad(weight, (0, -channels % WEIGHT_GROUP)).reshape(rows, -1, WEIGHT_GROUP)
    scale = _least_squares_scale(padded) if bits == 4 else _two_bit_scale(padded)
    low, high = (-8, 7) if bits == 4 else (-2, 1)
    levels = torch.round(padded / scale).clamp(low, high).to(torch.int8).reshape(rows, -1)[:, :channels]
    return levels.contiguous(), scale[..., 0].contiguous()


def _least_squares_scale(values: Tensor) -> Tensor:
    """Return, for each group (last dimension), the clipped range / 7 or / 8 of least squared rounding error.

    The range ends at -8 and 7: the sign of the scale is chosen so that the largest magnitude falls on -8.
    """
    extreme = values.gather(-1, values.abs().argmax(-1, keepdim=True))
    full = torch.where(extreme == 0, torch.full_like(extreme, torch.finfo(values.dtype).tiny), extreme / -8.0)
    best, least = full, torch.full_like(full, torch.inf)
    for ratio in CLIP_RATIOS:
        scale = full * ratio
        error = ((torch.round(values / scale).clamp(-8, 7) * scale - values) ** 2).sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _two_bit_scale(values: Tensor) -> Tensor:
    """Return, for each group (last dimension), the scale of least squared error with levels -2..1.

    Each scale of ``TWO_BIT_RATIOS`` gives levels; the scale that fits these best, sum(levels * values) / sum(levels^2),
    is what is tried (one step of Lloyd 1982). A group of zeros gets a scale that is tiny and not zero.
    """
    largest = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    best, least = largest, torch.full_like(largest, torch.inf)
    for ratio in TWO_BIT_RATIOS:
        levels = torch.round(values / (largest * ratio)).clamp(-2, 1)
        scale = (levels * values).sum(-1, keepdim=True) / levels.square().sum(-1, keepdim=True)
        scale = torch.where(scale.isfinite() & (scale != 0), scale, largest)
        error = ((torch.round(values / scale).clamp(-2, 1) * scale - values) ** 2).sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best
