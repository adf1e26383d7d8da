"""Modules that hold weights of fewer bits and compute what the engines compute with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autocompress.shape import WEIGHT_GROUP, Activations, Bits, EmbeddingBits


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each sequence of ``x`` (batch x ... x channels) to uint8 levels over its own range.

    The range always includes 0, scale = (max - min) / 255 and zero = round(-min / scale), as ONNX
    DynamicQuantizeLinear has it for a batch of one.

    Returns:
        (levels minus zero point, as floats that hold integers; scale with one value a sequence).
    """
    dims = tuple(range(1, x.dim()))
    low = x.amin(dims, keepdim=True).clamp(max=0.0)
    high = x.amax(dims, keepdim=True).clamp(min=0.0)
    scale = ((high - low) / 255.0).clamp(min=torch.finfo(x.dtype).tiny)
    zero = torch.round(-low / scale).clamp(0, 255)
    return torch.clamp(torch.round(x / scale) + zero, 0, 255) - zero, scale


def quantize_activation_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each token and group of 32 channels of ``x`` (... x channels) to -127..127.

    scale = max|x| / 127, levels = round(x * (127 / max|x|)) half to even, as ONNX Runtime's MatMulNBits has it at
    accuracy level 4; a group of zeros has the scale 0.

    Returns:
        (levels as floats that hold integers; scale (... x groups)).
    """
    channels = x.shape[-1]
    grouped = nn.functional.pad(x, (0, -channels % WEIGHT_GROUP)).reshape(*x.shape[:-1], -1, WEIGHT_GROUP)
    largest = grouped.abs().amax(-1, keepdim=True)
    levels = torch.round(grouped * torch.where(largest > 0, 127.0 / largest, 0.0))
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

    def forward(self, x: Tensor) -> Tensor:
        """Return levels minus zero of ``x`` (... x channels), as floats that hold integers."""
        steps = torch.round(x / self.step if self.inverse is None else x * self.inverse)
        zero = self.zero.to(x.dtype)
        return torch.clamp(steps, -zero, 255.0 - zero)


class QuantizedLinear(nn.Module):
    """``x @ weight.T + bias`` with weights of fewer bits than f32.

    Up to 8 bits the activations are quantized as well, per sequence or over a fixed range at 8 bits, per token and
    group of 32 channels below, and the products are sums of integers: below 8 bits within a group, whose sums are then
    scaled and added. At 16 bits the arithmetic is that of f32.

    Args:
        weight: (outputs x inputs) bfloat16 at 16 bits, else int8: -127..127 at 8 bits, -8..7 at 4, -4..3 at 3, -2..1
            at 2.
        scale: (outputs,) at 8 bits; (outputs x groups) below, a group being 32 input channels; none at 16.
        bias: (outputs,).
        bits: 16, 8, 4, 3 or 2.
        quantizer: Of the activations at 8 bits; ``None``: over the range of each sequence.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor,
        bits: Bits,
        quantizer: StaticQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.quantizer = quantizer
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor
        self.scale: Tensor | None
        self.bias: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch x ... x inputs) to (batch x ... x outputs)."""
        if self.scale is None:
            return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)
        if self.bits < 8:
            # Scaled before they are summed rather than after: the same but for rounding of 1e-7.
            levels, scale = quantize_activation_groups(x)
            weight = expand_groups(self.weight, self.scale)
            return nn.functional.linear(expand_groups(levels, scale), weight, self.bias)
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


def expand_groups(levels: Tensor, scale: Tensor) -> Tensor:
    """Return (... x channels) integer levels times the scale (... x groups) of their group of 32 channels."""
    return levels * scale.repeat_interleave(WEIGHT_GROUP, dim=-1)[..., : levels.shape[-1]]
