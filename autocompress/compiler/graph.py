"""The encoder, written down once: each engine's graph builder is handed the same sequence of operations.

So the kernels that a profiled shape runs are the kernels that the deployed model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from autocompress.shape import WEIGHT_GROUP, Bits, ModelShape

V = TypeVar("V")
Array: TypeAlias = npt.NDArray[np.generic]
Weights: TypeAlias = Mapping[str, Array]
"""Tensor name -> array, for every name of ``weight_specs``. Linear weights are (inputs x outputs); int4 values are
int8 arrays in -8..7."""
Activation: TypeAlias = Literal["gelu", "relu", "tanh"]

_BYTES: dict[str, float] = {"f32": 4.0, "i8": 1.0, "i4": 0.5}


@dataclass(frozen=True)
class TensorSpec:
    """Dimensions and stored type of one tensor."""

    dimensions: tuple[int, ...]
    dtype: Literal["f32", "i8", "i4"]

    @property
    def size_bytes(self) -> int:
        """Bytes as packed (two int4 values in a byte)."""
        return int(-(-prod(self.dimensions) * _BYTES[self.dtype] // 1))


class Graph(Protocol[V]):
    """What an encoder is made of. ``x`` is (batch x tokens x channels) unless said otherwise."""

    def lookup(self, name: str, bits: Bits) -> V:
        """Return the rows of ``{name}.word`` that the input ids name."""

    def positions(self, x: V, name: str) -> V:
        """Return ``x`` plus the first rows of ``{name}.position``."""

    def norm(self, x: V, name: str, epsilon: float) -> V:
        """Normalize over channels, times ``{name}.weight`` plus ``{name}.bias``."""

    def linear(self, x: V, name: str, bits: Bits, activation: Activation | None = None) -> V:
        """Return ``activation(x @ {name}.weight + {name}.bias)`` at the arithmetic that ``bits`` stands for."""

    def attention(self, qkv: V, heads: int, head_width: int) -> V:
        """Return softmax(Q K^T / sqrt(head_width) + mask) V; ``qkv`` holds all Q, then all K, then all V channels."""

    def add(self, x: V, y: V) -> V:
        """Return the elementwise sum."""

    def first_token(self, x: V) -> V:
        """Return (batch x channels), the channels of the first token."""


def emit(graph: Graph[V], shape: ModelShape) -> V:
    """Write an encoder classifier of ``shape`` into ``graph`` and return its logits (batch x classes)."""
    x = graph.positions(graph.lookup("embeddings", shape.embedding_bits), "embeddings")
    x = graph.norm(x, "embeddings.norm", shape.norm_epsilon)
    if shape.embedding != shape.hidden:
        x = graph.linear(x, "embeddings.project", 32)
    for index, layer in enumerate(shape.layers):
        name = f"layers.{index}"
        qkv = graph.linear(x, f"{name}.qkv", layer.attention_bits)
        mixed = graph.attention(qkv, layer.heads, layer.head_width)
        x = graph.add(x, graph.linear(mixed, f"{name}.output", layer.attention_bits))
        x = graph.norm(x, f"{name}.attention_norm", shape.norm_epsilon)
        inner = graph.linear(x, f"{name}.ffn_in", layer.ffn_bits, shape.activation)
        x = graph.add(x, graph.linear(inner, f"{name}.ffn_out", layer.ffn_bits))
        x = graph.norm(x, f"{name}.ffn_norm", shape.norm_epsilon)
    pooled = graph.linear(graph.first_token(x), "head.dense", 32, shape.head_activation)
    return graph.linear(pooled, "head.classifier", 32)


def linear_specs(name: str, inputs: int, outputs: int, bits: Bits) -> dict[str, TensorSpec]:
    """Return the tensors of one linear map at ``bits``."""
    bias = {f"{name}.bias": TensorSpec((outputs,), "f32")}
    if bits == 32:
        return {f"{name}.weight": TensorSpec((inputs, outputs), "f32"), **bias}
    if bits == 8:
        scale, stored = TensorSpec((outputs,), "f32"), TensorSpec((inputs, outputs), "i8")
    else:
        scale = TensorSpec((groups(inputs), outputs), "f32")
        stored = TensorSpec((inputs, outputs), "i4")
    return {f"{name}.weight": stored, f"{name}.scale": scale, **bias}


def groups(channels: int) -> int:
    """Return how many 4-bit scale groups ``channels`` input channels make."""
    return -(-channels // WEIGHT_GROUP)


def weight_specs(shape: ModelShape) -> dict[str, TensorSpec]:
    """Return every tensor that a model of ``shape`` stores."""

    def norm(name: str, width: int) -> dict[str, TensorSpec]:
        return {f"{name}.{part}": TensorSpec((width,), "f32") for part in ("weight", "bias")}

    specs = _embedding_specs(shape) | norm("embeddings.norm", shape.embedding)
    if shape.embedding != shape.hidden:
        specs |= linear_specs("embeddings.project", shape.embedding, shape.hidden, 32)
    for index, layer in enumerate(shape.layers):
        name = f"layers.{index}"
        specs |= linear_specs(f"{name}.qkv", shape.hidden, 3 * layer.attention, layer.attention_bits)
        specs |= linear_specs(f"{name}.output", layer.attention, shape.hidden, layer.attention_bits)
        specs |= norm(f"{name}.attention_norm", shape.hidden)
        specs |= linear_specs(f"{name}.ffn_in", shape.hidden, layer.ffn, layer.ffn_bits)
        specs |= linear_specs(f"{name}.ffn_out", layer.ffn, shape.hidden, layer.ffn_bits)
        specs |= norm(f"{name}.ffn_norm", shape.hidden)
    specs |= linear_specs("head.dense", shape.hidden, shape.hidden, 32)
    return specs | linear_specs("head.classifier", shape.hidden, shape.classes, 32)


def _embedding_specs(shape: ModelShape) -> dict[str, TensorSpec]:
    table = (shape.vocabulary, shape.embedding)
    position = {"embeddings.position": TensorSpec((shape.positions, shape.embedding), "f32")}
    if shape.embedding_bits == 32:
        return {"embeddings.word": TensorSpec(table, "f32"), **position}
    if shape.embedding_bits == 8:
        word, scale = TensorSpec(table, "i8"), TensorSpec((shape.vocabulary, 1), "f32")
    else:
        word, scale = TensorSpec(table, "i4"), TensorSpec((shape.vocabulary, groups(shape.embedding)), "f32")
    return {"embeddings.word": word, "embeddings.scale": scale, **position}


def random_weights(shape: ModelShape, seed: int = 0) -> dict[str, Array]:
    """Return weights of ``shape`` with values of ordinary size, for profiling shapes that were never trained."""
    rng = np.random.default_rng(seed)

    def draw(name: str, spec: TensorSpec) -> Array:
        if spec.dtype == "i8":
            return rng.integers(-127, 128, spec.dimensions, dtype=np.int8)
        if spec.dtype == "i4":
            return rng.integers(-8, 8, spec.dimensions, dtype=np.int8)
        if name.endswith("norm.weight"):
            return np.ones(spec.dimensions, np.float32)
        if name.endswith(".scale"):
            return np.full(spec.dimensions, 0.002, np.float32)
        return rng.standard_normal(spec.dimensions, dtype=np.float32) * np.float32(0.03)

    return {name: draw(name, spec) for name, spec in weight_specs(shape).items()}
