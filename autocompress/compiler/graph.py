"""The encoders, written down once: each engine's graph builder is handed the same sequence of operations.

So the kernels that a profiled shape runs are the kernels that the deployed model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from autocompress.shape import (
    WEIGHT_GROUP,
    Activations,
    Bits,
    EmbeddingBits,
    LayerShape,
    ModelShape,
    Pixels,
    WeightGrid,
    usual_grid,
)

V = TypeVar("V")
Array: TypeAlias = npt.NDArray[np.generic]
Weights: TypeAlias = Mapping[str, Array]
"""Tensor name -> array, for every name of ``weight_specs``. Linear weights are (inputs x outputs), scales and zero
points of groups (groups x outputs); i4, i3 and i2 values are int8 arrays in -8..7, -4..3 and -2..1, bf16 values float32
arrays that ``round_bf16`` leaves as they are."""
Activation: TypeAlias = Literal["gelu", "relu", "tanh"]

Stored: TypeAlias = Literal["f32", "bf16", "u8", "i8", "i4", "i3", "i2"]

_BYTES: dict[Stored, float] = {"f32": 4.0, "bf16": 2.0, "u8": 1.0, "i8": 1.0, "i4": 0.5, "i3": 0.375, "i2": 0.25}
_STORED: dict[Bits, Stored] = {32: "f32", 16: "bf16", 8: "i8", 4: "i4", 3: "i3", 2: "i2"}


@dataclass(frozen=True)
class TensorSpec:
    """Dimensions and stored type of one tensor."""

    dimensions: tuple[int, ...]
    dtype: Stored

    @property
    def size_bytes(self) -> int:
        """Bytes as packed (two i4 or four i2 values in a byte, eight i3 values in three)."""
        return int(-(-prod(self.dimensions) * _BYTES[self.dtype] // 1))


class Graph(Protocol[V]):
    """What an encoder is made of. ``x`` is (batch x tokens x channels) unless said otherwise."""

    def lookup(self, name: str, bits: EmbeddingBits) -> V:
        """Return the ``{name}.word`` rows of the input ids."""

    def positions(self, x: V, name: str) -> V:
        """Return ``x`` plus the first rows of ``{name}.position``, one a token."""

    def patches(self, pixels: Pixels) -> V:
        """Return (batch x patches x values), patches row by row, their values by channel and then row by row."""

    def behind_learned(self, x: V, name: str, learned: int) -> V:
        """Return ``x`` behind so many learned tokens, plus ``{name}.position``, whose first rows these tokens are."""

    def norm(self, x: V, name: str, epsilon: float) -> V:
        """Normalize over channels, times ``{name}.weight`` plus ``{name}.bias``."""

    def sum_and_norm(self, x: V, y: V, name: str, epsilon: float) -> tuple[V, V]:
        """Return ``x + y``, and ``norm`` of that."""

    def linear(
        self,
        x: V,
        name: str,
        bits: Bits,
        activation: Activation | None = None,
        *,
        reads: Activations = "dynamic",
        grid: WeightGrid | None = None,
    ) -> V:
        """Return ``activation(x @ {name}.weight + {name}.bias)`` at the arithmetic that ``bits`` stands for.

        Weights in the groups of ``grid`` are (levels - {name}.zero_points) * {name}.scale, where there are zero points.
        ``reads`` counts at 8 bits alone, where weights are in no groups. Levels of activations are then clip(round(a) +
        {name}.zero, 0, 255), half to even, with a = x / {name}.step if they are ``static``, and x * {name}.inverse, one
        a channel, if ``smoothed``; sums of their products, less the zero point, are multiplied by f32({name}.step *
        {name}.scale).
        """

    def attention(self, qkv: V, heads: int, head_width: int) -> V:
        """Return softmax(Q K^T / sqrt(head_width) + mask) V; ``qkv`` holds all Q, then all K, then all V channels."""

    def attention_received(self, qkv: V, heads: int, head_width: int) -> tuple[V, V]:
        """Return ``attention`` and what each token receives of it (batch x tokens; a layout of the graph's own).

        That is the sum over heads and over the real tokens that look, the token itself left out: the significance of
        PoWER-BERT (Goyal et al., ICML 2020, section 3.2).
        """

    def most_significant(self, received: V, most: int) -> V:
        """Return the places of up to ``most`` tokens, and let attention from now on see these alone.

        The first token comes first, then real tokens, the most significant first, then padding; of equals the one that
        stands first.
        """

    def take(self, x: V, places: V) -> V:
        """Return the rows of ``x`` at the places that ``most_significant`` returned."""

    def add(self, x: V, y: V) -> V:
        """Return the elementwise sum."""

    def first_token(self, x: V) -> V:
        """Return (batch x channels), the channels of the first token."""

    def first_and_mean(self, x: V, learned: int) -> V:
        """Return (batch x 2 channels), the first token beside the mean of those behind the learned ones."""


def emit(graph: Graph[V], shape: ModelShape) -> V:
    """Write an encoder classifier of ``shape`` into ``graph`` and return its logits (batch x classes).

    Where a last layer passes on one token, that is the first, which the head reads: nothing is lost.
    """
    x = _read(graph, shape)
    x = _post_norm_layers(graph, shape, x) if shape.order == "post" else _pre_norm_layers(graph, shape, x)
    bits, grid = shape.head_bits, usual_grid(shape.head_bits)
    if shape.head == "dense":
        x = graph.linear(x, "head.dense", bits, shape.head_activation, grid=grid)
    return graph.linear(x, "head.classifier", bits, grid=grid)


def _read(graph: Graph[V], shape: ModelShape) -> V:
    """Write what comes before the layers."""
    if shape.pixels is not None:
        x = graph.linear(graph.patches(shape.pixels), "embeddings.patch", 32)
        return graph.behind_learned(x, "embeddings", shape.pixels.learned)
    x = graph.lookup("embeddings", shape.embedding_bits)
    if shape.embedding_rank:
        x = graph.linear(x, "embeddings.expand", 32)
    x = graph.norm(graph.positions(x, "embeddings"), "embeddings.norm", shape.norm_epsilon)
    return x if shape.embedding == shape.hidden else graph.linear(x, "embeddings.project", 32)


def _post_norm_layers(graph: Graph[V], shape: ModelShape, x: V) -> V:
    """Write the layers, and return what the head reads."""
    first_alone = False
    for index, layer in enumerate(shape.layers):
        name, first_alone = f"layers.{index}", _first_alone(shape, index)
        x, mixed = _attention(graph, layer, name, x, x, first_alone=first_alone)
        x = graph.norm(graph.add(x, mixed), f"{name}.attention_norm", shape.norm_epsilon)
        x = graph.norm(graph.add(x, _ffn(graph, shape, index, x)), f"{name}.ffn_norm", shape.norm_epsilon)
    return x if first_alone else graph.first_token(x)


def _pre_norm_layers(graph: Graph[V], shape: ModelShape, x: V) -> V:
    """Write the layers and the last norm, and return what the head reads."""
    epsilon, last = shape.norm_epsilon, len(shape.layers) - 1
    read = graph.norm(x, "layers.0.attention_norm" if shape.layers else "norm", epsilon)
    for index, layer in enumerate(shape.layers):
        name, first_alone = f"layers.{index}", _first_alone(shape, index)
        x, mixed = _attention(graph, layer, name, x, read, first_alone=first_alone)
        x, read = graph.sum_and_norm(x, mixed, f"{name}.ffn_norm", epsilon)
        inner = _ffn(graph, shape, index, read)
        if index < last:
            x, read = graph.sum_and_norm(x, inner, f"layers.{index + 1}.attention_norm", epsilon)
        elif shape.head == "first_and_mean":
            read = graph.norm(graph.add(x, inner), "norm", epsilon)
        else:
            if not first_alone:
                x, inner = graph.first_token(x), graph.first_token(inner)
            return graph.norm(graph.add(x, inner), "norm", epsilon)
    if shape.head == "first_and_mean":
        assert shape.pixels is not None
        return graph.first_and_mean(read, shape.pixels.learned)
    return graph.first_token(read)


def _first_alone(shape: ModelShape, index: int) -> bool:
    return shape.layers[index].most_tokens == 1 and index == len(shape.layers) - 1


def _attention(graph: Graph[V], layer: LayerShape, name: str, x: V, read: V, *, first_alone: bool) -> tuple[V, V]:
    """Write the attention of a layer over ``read``; return ``x`` and what is to be added to it, of the tokens left."""
    inward, outward = (_storing(layer, bits) for bits in layer.bits[:2])
    qkv = graph.linear(read, f"{name}.qkv", layer.attention_in_bits, **inward)
    if layer.most_tokens and not first_alone:
        mixed, received = graph.attention_received(qkv, layer.heads, layer.head_width)
        places = graph.most_significant(received, layer.most_tokens)
        mixed, x = graph.take(mixed, places), graph.take(x, places)
    else:
        mixed = graph.attention(qkv, layer.heads, layer.head_width)
    if first_alone:
        mixed, x = graph.first_token(mixed), graph.first_token(x)
    return x, graph.linear(mixed, f"{name}.output", layer.attention_out_bits, **outward)


def _ffn(graph: Graph[V], shape: ModelShape, index: int, x: V) -> V:
    name, layer = f"layers.{index}", shape.layers[index]
    widening, narrowing = (_storing(layer, bits) for bits in layer.bits[2:])
    inner = graph.linear(x, f"{name}.ffn_in", layer.ffn_in_bits, shape.activation, **widening)
    return graph.linear(inner, f"{name}.ffn_out", layer.ffn_out_bits, **narrowing)


class _Storing(TypedDict):
    reads: Activations
    grid: WeightGrid | None


def _storing(layer: LayerShape, bits: Bits) -> _Storing:
    return {"reads": layer.activations_at(bits), "grid": layer.grid_at(bits)}


def linear_specs(
    name: str,
    inputs: int,
    outputs: int,
    bits: Bits,
    *,
    reads: Activations = "dynamic",
    grid: WeightGrid | None = None,
) -> dict[str, TensorSpec]:
    """Return the tensors of one linear map at ``bits``; below 8 there is a ``grid``."""
    weight = {f"{name}.weight": TensorSpec((inputs, outputs), _STORED[bits])}
    bias = {f"{name}.bias": TensorSpec((outputs,), "f32")}
    if bits in (32, 16):
        return weight | bias
    if grid is not None:
        each = grid.count(inputs), outputs
        zeros = {f"{name}.zero_points": TensorSpec(each, _STORED[bits])} if grid.zero_points else {}
        return weight | {f"{name}.scale": TensorSpec(each, "f32")} | zeros | bias
    found = weight | {f"{name}.scale": TensorSpec((outputs,), "f32")} | bias
    if reads != "dynamic":
        found |= {f"{name}.step": TensorSpec((1,), "f32"), f"{name}.zero": TensorSpec((1,), "u8")}
    if reads == "smoothed":
        found |= {f"{name}.inverse": TensorSpec((inputs,), "f32")}
    return found


def groups(channels: int) -> int:
    """Return how many groups of a scale each ``channels`` channels of a token table's row make at 4 bits."""
    return -(-channels // WEIGHT_GROUP)


def weight_specs(shape: ModelShape) -> dict[str, TensorSpec]:
    """Return every tensor that a model of ``shape`` stores."""

    def linear(layer: LayerShape, bits: Bits, name: str, inputs: int, outputs: int) -> dict[str, TensorSpec]:
        return linear_specs(name, inputs, outputs, bits, **_storing(layer, bits))

    specs = _embedding_specs(shape)
    for index, layer in enumerate(shape.layers):
        name = f"layers.{index}"
        specs |= linear(layer, layer.attention_in_bits, f"{name}.qkv", shape.hidden, 3 * layer.attention)
        specs |= linear(layer, layer.attention_out_bits, f"{name}.output", layer.attention, shape.hidden)
        specs |= _norm_specs(f"{name}.attention_norm", shape.hidden)
        specs |= linear(layer, layer.ffn_in_bits, f"{name}.ffn_in", shape.hidden, layer.ffn)
        specs |= linear(layer, layer.ffn_out_bits, f"{name}.ffn_out", layer.ffn, shape.hidden)
        specs |= _norm_specs(f"{name}.ffn_norm", shape.hidden)
    if shape.order == "pre":
        specs |= _norm_specs("norm", shape.hidden)
    for name, (inputs, outputs) in shape.head_maps.items():
        specs |= linear_specs(name, inputs, outputs, shape.head_bits, grid=usual_grid(shape.head_bits))
    return specs


def _norm_specs(name: str, width: int) -> dict[str, TensorSpec]:
    return {f"{name}.{part}": TensorSpec((width,), "f32") for part in ("weight", "bias")}


def _embedding_specs(shape: ModelShape) -> dict[str, TensorSpec]:
    position = {"embeddings.position": TensorSpec((shape.positions, shape.embedding), "f32")}
    if shape.pixels is not None:
        return linear_specs("embeddings.patch", shape.pixels.values, shape.hidden, 32) | position
    specs = _table_specs(shape)
    if shape.embedding_rank:
        specs |= linear_specs("embeddings.expand", shape.embedding_rank, shape.embedding, 32)
    specs |= position | _norm_specs("embeddings.norm", shape.embedding)
    if shape.embedding != shape.hidden:
        specs |= linear_specs("embeddings.project", shape.embedding, shape.hidden, 32)
    return specs


def _table_specs(shape: ModelShape) -> dict[str, TensorSpec]:
    bits, width = shape.embedding_bits, shape.token_width
    word = {"embeddings.word": TensorSpec((shape.vocabulary, width), _STORED[bits])}
    if bits in (32, 16):
        return word
    scales = 1 if bits == 8 else groups(width)
    return word | {"embeddings.scale": TensorSpec((shape.vocabulary, scales), "f32")}


def random_weights(shape: ModelShape, seed: int = 0) -> dict[str, Array]:
    """Return weights of ``shape`` with values of ordinary size, for profiling shapes that were never trained."""
    rng = np.random.default_rng(seed)

    def draw(name: str, spec: TensorSpec) -> Array:
        if name.endswith((".inverse", ".step")):
            return np.full(spec.dimensions, 30.0 if name.endswith(".inverse") else 1 / 30, np.float32)
        if spec.dtype == "u8":
            return np.full(spec.dimensions, 128, np.uint8)
        if spec.dtype in _LEVELS:
            return rng.integers(*_LEVELS[spec.dtype], spec.dimensions, dtype=np.int8, endpoint=True)
        if name.endswith("norm.weight"):
            return np.ones(spec.dimensions, np.float32)
        if name.endswith(".scale"):
            return np.full(spec.dimensions, 0.002, np.float32)
        values = rng.standard_normal(spec.dimensions, dtype=np.float32) * np.float32(0.03)
        return round_bf16(values) if spec.dtype == "bf16" else values

    return {name: draw(name, spec) for name, spec in weight_specs(shape).items()}


_LEVELS: dict[Stored, tuple[int, int]] = {"i8": (-127, 127), "i4": (-8, 7), "i3": (-4, 3), "i2": (-2, 1)}
"""Least and largest level of each integer type."""


def bf16_bits(values: Array) -> npt.NDArray[np.uint16]:
    """Return finite float32 ``values`` rounded to bfloat16, half to even, as bit patterns of the same dimensions."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def round_bf16(values: Array) -> npt.NDArray[np.float32]:
    """Return finite float32 ``values`` rounded to what bfloat16 can hold, half to even."""
    return (bf16_bits(values).astype(np.uint32) << 16).view(np.float32)
