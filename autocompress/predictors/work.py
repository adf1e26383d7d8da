"""What a model does and stores, counted by the name of a feature: of one layer, and of everything around the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from autocompress.compiler.graph import Stored, TensorSpec, weight_specs
from autocompress.predictors.hardware import Hardware
from autocompress.shape import WEIGHT_GROUP, Activations, Bits, LayerShape, ModelShape, WeightGrid, usual_grid

Counts: TypeAlias = Iterator[tuple[str, float]]
"""(name, what is to be added to it); all of them multiples of 1/8, so that sums are exact in any order."""


def frame_work(frame: ModelShape, tokens: int, hardware: Hardware) -> Counts:
    """Count what lies around the layers of a model: embeddings and head."""
    yield "constant", 1.0
    yield "tokens", tokens
    yield "hidden", frame.hidden
    if frame.pixels is None:
        yield f"embedding_elements_{frame.embedding_bits}", tokens * frame.token_width
        if frame.embedding_rank:
            yield from _gemm(tokens, frame.embedding_rank, frame.embedding, 32, hardware)
    else:
        yield "pixels", frame.pixels.channels * frame.pixels.height * frame.pixels.width
        yield from _gemm(frame.pixels.patches, frame.pixels.values, frame.hidden, 32, hardware)
    yield "channel_elements", tokens * frame.embedding
    if frame.order == "pre":
        yield "norms_first", 1.0
        yield "channel_elements", (tokens if frame.head == "first_and_mean" else 1) * frame.hidden
    if frame.embedding != frame.hidden:
        yield from _gemm(tokens, frame.embedding, frame.hidden, 32, hardware)
    for inputs, outputs in frame.head_maps.values():
        yield from _gemm(1, inputs, outputs, frame.head_bits, hardware, grid=usual_grid(frame.head_bits))
        if frame.head_bits != 32:
            yield f"head_maps_{frame.head_bits}", 1.0
    for name, spec in weight_specs(frame).items():
        if not name.startswith("layers."):
            yield from _bytes(name, spec, frame.embedding_bits)


def layer_work(layer: LayerShape, hidden: int, tokens: int, hardware: Hardware) -> Counts:
    """Count one layer that ``tokens`` tokens reach; one that passes on a single token is taken to be the last."""
    left = layer.passes_on(tokens)
    yield "layers", 1.0
    maps = (
        (tokens, hidden, 3 * layer.attention, layer.attention_in_bits),
        (left, layer.attention, hidden, layer.attention_out_bits),
        (left, hidden, layer.ffn, layer.ffn_in_bits),
        (left, layer.ffn, hidden, layer.ffn_out_bits),
    )
    for rows, inputs, outputs, bits in maps:
        yield from _gemm(rows, inputs, outputs, bits, hardware, layer.activations_at(bits), layer.grid_at(bits))
    if 1 < left < tokens:
        yield "selections", 1.0
        yield "received_elements", layer.heads * tokens * tokens
        yield "taken_elements", left * (hidden + layer.attention)
    yield "attention_macs", 2 * tokens * tokens * layer.attention
    yield "softmax_elements", layer.heads * tokens * tokens
    yield "heads", layer.heads
    yield "channel_elements", left * hidden
    yield "attention_elements", tokens * layer.attention
    yield "ffn_elements", left * layer.ffn
    for name, spec in weight_specs(ModelShape("", 1, 1, hidden, hidden, (layer,), 1)).items():
        if name.startswith("layers."):
            yield from _bytes(name, spec, 32)


def _gemm(
    rows: int,
    inputs: int,
    outputs: int,
    bits: Bits,
    hardware: Hardware,
    reads: Activations = "dynamic",
    grid: WeightGrid | None = None,
) -> Counts:
    padded = hardware.padded_macs(rows, inputs, outputs, bits, grid)
    if grid is None:
        yield f"gemm_macs_{bits}", rows * inputs * outputs
    else:
        yield from _grouped(rows, inputs, outputs, bits, grid)
    yield f"padded_macs_{bits}", padded
    if hardware.has_dot(bits, grid):
        yield "dot_macs", padded
    yield f"gemm_weights_{bits}", inputs * outputs
    yield "beyond_l2_bytes", max(0.0, inputs * outputs * bits / 8 - hardware.l2_bytes)
    if reads in ("static", "smoothed"):
        yield "fixed_ranges", 1.0
    if reads != "dynamic":
        yield f"{reads}_elements", rows * inputs
    elif bits != 32:
        yield f"quantized_elements_{bits}", rows * inputs
    if bits == 8 and grid is None:
        yield "dequantized_elements", rows * outputs


def _grouped(rows: int, inputs: int, outputs: int, bits: Bits, grid: WeightGrid) -> Counts:
    """Count a product of weights in groups: kinds that cost more or less for as much work have columns of their own."""
    macs, sums = rows * inputs * outputs, rows * grid.count(inputs) * outputs
    if grid.group != WEIGHT_GROUP:
        yield "coarse_macs", macs
        yield "coarse_sums", sums
    else:
        yield "token_macs" if bits == 8 else f"gemm_macs_{bits}", macs
    if grid.zero_points:
        yield "zero_points", grid.count(inputs) * outputs
        yield "zero_point_sums", sums


def _bytes(name: str, spec: TensorSpec, embedding_bits: int) -> Counts:
    yield "position_bytes" if name == "embeddings.position" else "weight_bytes", spec.size_bytes
    if name in ("embeddings.word", "embeddings.scale"):
        yield f"embedding_bytes_{embedding_bits}", spec.size_bytes
    elif name.endswith(".weight") and len(spec.dimensions) == 2:
        yield f"linear_bytes_{_STORED_BITS[spec.dtype]}", spec.size_bytes


_STORED_BITS: dict[Stored, Bits] = {"f32": 32, "bf16": 16, "i8": 8, "i4": 4, "i3": 3, "i2": 2}
