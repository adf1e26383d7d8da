"""Modules that hold weights of fewer bits and compute what the engines compute with them.

Gradients pass rounded activations as if these had not been rounded, ranges being constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits, WeightGrid, WeightGroup


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded``, of which ``value`` (the same shape) gets the gradient.

    Source: the straight-through estimator of Bengio et al. 2013, section 4.
    """
    passed: Tensor = _StraightThrough.apply(value, rounded)  # type: ignore[no-untyped-call]
    return passed


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each sequence of ``x`` (batch x ... x channels) to uint8 levels over its own range.

    The range always includes 0, scale = (max - min) / 255 and zero = round(-min / scale), as ONNX
    DynamicQuantizeLinear has it for a batch of one.

    Returns:
        (levels minus zero point, as floats that hold integers; scale with one value a sequence).
    """
    dims = tuple(range(1, x.dim()))
    low = x.detach().amin(dims, keepdim=True).clamp(max=0.0)
    high = x.detach().amax(dims, keepdim=True).clamp(min=0.0)
    scale = ((high - low) / 255.0).clamp(min=torch.finfo(x.dtype).tiny)
    zero = torch.round(-low / scale).clamp(0, 255)
    exact = x / scale
    return straight_through(exact, torch.clamp(torch.round(exact) + zero, 0, 255) - zero), scale


def quantize_activation_groups(x: Tensor, group: int = WEIGHT_GROUP) -> tuple[Tensor, Tensor]:
    """Quantize each token and group of so many channels of ``x`` (... x channels) to -127..127.

    scale = max|x| / 127, levels = round(x * (127 / max|x|)) half to even, as ONNX Runtime's MatMulNBits has it at
    accuracy level 4; a group of zeros has the scale 0.

    Returns:
        (levels as floats that hold integers; scale (... x groups)).
    """
    channels = x.shape[-1]
    grouped = nn.functional.pad(x, (0, -channels % group)).reshape(*x.shape[:-1], -1, group)
    largest = grouped.detach().abs().amax(-1, keepdim=True)
    exact = grouped * torch.where(largest > 0, 127.0 / largest, 0.0)
    levels = straight_through(exact, torch.round(exact))
    return levels.flatten(-2)[..., :channels], largest[..., 0] / 127.0


class StaticQuantizer(nn.Module):
    """Rounds activations to uint8 levels over a range that is fixed: clip(round(a) + zero, 0, 255), half to even.

    a = x / step or, where channels are smoothed, x * inverse.

    Args:
        step: (1,).
        zero: (1,) uint8, the level that stands for 0.
        inverse: (channels,) 1 / (step * what the channel's weights are multiplied by), or ``None``.
    """

    def __init__(self, step: Tensor, zero: Tensor, inverse: Tensor | None = None) -> None:
        super().__init__()
        self.step: Tensor
        self.zero: Tensor
        self.inverse: Tensor | None
        self.register_buffer("step", step)
        self.register_buffer("zero", zero)
        self.register_buffer("inverse", inverse)

    @property
    def activations(self) -> Activations:
        """What ``LayerShape`` calls them."""
        return "static" if self.inverse is None else "smoothed"

    def readers(self, weight: Tensor) -> Tensor:
        """Return weights (outputs x channels) that read what is quantized here: they make up for smoothed channels."""
        return weight if self.inverse is None else weight / (self.step * self.inverse)

    def forward(self, x: Tensor) -> Tensor:
        """Return levels minus zero of ``x`` (... x channels), as floats that hold integers."""
        exact, zero = x / self.step if self.inverse is None else x * self.inverse, self.zero.to(x.dtype)
        low, high = -zero, 255.0 - zero
        return straight_through(exact.clamp(low, high), torch.round(exact).clamp(low, high))


class QuantizedLinear(nn.Module):
    """``x @ weight.T + bias`` with weights of fewer bits than f32.

    Up to 8 bits the activations are quantized as well, and the products are sums of integers. At 8 bits activations are
    so per sequence or over a fixed range; where weights are in groups of input channels, as they always are below 8
    bits, per token and group, whose sums are then scaled and added. At 16 bits the arithmetic is that of f32.

    Args:
        weight: (outputs x inputs) bfloat16 at 16 bits, else int8: -127..127 at 8 bits, -128..127 there in groups, -8..7
            at 4, -4..3 at 3, -2..1 at 2.
        scale: (outputs,), or (outputs x groups) where weights are in groups; none at 16 bits.
        bias: (outputs,).
        bits: 16, 8, 4, 3 or 2.
        quantizer: Of the activations at 8 bits; ``None``: over the range of each sequence.
        group: Input channels of a group; ``None``: no groups at 8 bits, 32 below.
        zero_points: (outputs x groups) int8, the levels that stand for 0, below 8 bits; ``None``: 0.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor,
        bits: Bits,
        quantizer: StaticQuantizer | None = None,
        group: WeightGroup | None = None,
        zero_points: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.quantizer = quantizer
        self.grid = WeightGrid(group or WEIGHT_GROUP, zero_points is not None) if group or bits < 8 else None
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor
        self.scale: Tensor | None
        self.bias: Tensor
        self.zero_points: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.register_buffer("zero_points", zero_points)

    @property
    def activations(self) -> Activations:
        """What ``LayerShape`` calls them."""
        if self.quantizer is not None:
            return self.quantizer.activations
        return "token" if self.bits == 8 and self.grid else "dynamic"

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch x ... x inputs) to (batch x ... x outputs)."""
        if self.scale is None:
            return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)
        if self.grid is not None:
            # Scaled before they are summed rather than after: the same but for rounding of 1e-7.
            group = self.grid.group
            levels, scale = quantize_activation_groups(x, group)
            weight = expand_groups(self.weight, self.scale, group, self.zero_points)
            return nn.functional.linear(expand_groups(levels, scale, group), weight, self.bias)
        if self.quantizer is None:
            levels, scale = quantize_activations(x)
        else:
            levels, scale = self.quantizer(x), self.quantizer.step
        # Sums of products of integers: exact in f32 up to 2**24, within 1e-7 of exact above.
        return nn.functional.linear(levels, self.weight.to(x.dtype)) * (scale * self.scale) + self.bias


def quantizer_of(module: nn.Module) -> StaticQuantizer | None:
    """Return the quantizer of what ``module`` reads, if its range is fixed."""
    return module.quantizer if isinstance(module, QuantizedLinear) else None


class QuantizedEmbedding(nn.Module):
    """A token table of bfloat16 (16 bits) or of integers, one scale a row (8 bits) or a group of 32 channels (4)."""

    def __init__(self, weight: Tensor, scale: Tensor | None, bits: EmbeddingBits) -> None:
        super().__init__()
        self.bits = bits
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight: Tensor
        self.scale: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up (batch x tokens) ids: (batch x tokens x channels)."""
        rows = self.weight[ids]
        if self.scale is None:
            return rows.float()
        return rows * self.scale[ids] if self.bits == 8 else expand_groups(rows, self.scale[ids])


def expand_groups(
    levels: Tensor, scale: Tensor, group: int = WEIGHT_GROUP, zero_points: Tensor | None = None
) -> Tensor:
    """Return levels (... x channels), less the zero point, times the scale (... x groups), of their group."""
    channels = levels.shape[-1]
    if zero_points is not None:
        levels = levels - zero_points.repeat_interleave(group, dim=-1)[..., :channels]
    return levels * scale.repeat_interleave(group, dim=-1)[..., :channels]
