"""The one place where a shape becomes numbers: fitting and predicting both read these columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from autocompress.compiler.dots import dpbf16ps, nibble_vnni, vnni
from autocompress.compiler.graph import Stored, weight_specs
from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine
from autocompress.compiler.memory import activation_bytes, workspace_bytes
from autocompress.shape import BITS, EMBEDDING_BITS, Bits, LayerShape, ModelShape

Row = npt.NDArray[np.float64]

LATENCY: tuple[str, ...] = (
    "constant",
    "layers",
    *(f"gemm_macs_{bits}" for bits in BITS),
    *(f"gemm_weights_{bits}" for bits in BITS),
    *(f"quantized_elements_{bits}" for bits in BITS if bits != 32),
    "dequantized_elements",
    "attention_macs",
    "softmax_elements",
    "heads",
    "channel_elements",
    "attention_elements",
    "ffn_elements",
    *(f"embedding_elements_{bits}" for bits in EMBEDDING_BITS),
)
"""Columns that explain time, summed over layers: multiply-accumulates, weights read, elements touched, calls. Elements
that are quantized at 16 bits are those that processors with products of bfloat16 round to it."""
MEMORY: tuple[str, ...] = (
    "constant",
    "layers",
    *(f"linear_bytes_{bits}" for bits in BITS),
    *(f"embedding_bytes_{bits}" for bits in EMBEDDING_BITS),
    "activation_bytes",
)
"""Columns that explain resident memory: bytes of weights by kind, bytes of activations and workspace as planned."""
KERNELS: tuple[str, ...] = tuple(f"kernels_{bits}" for bits in BITS)
SIZE: tuple[str, ...] = ("constant", "layers", "weight_bytes", "position_bytes", *KERNELS)
"""Columns that explain bytes on disk: weights as packed, the position table (a compiled library keeps only the rows
it needs), what the container adds to each layer, and linear maps that differ (a library holds code for each)."""
FEATURES: tuple[str, ...] = tuple(dict.fromkeys((*LATENCY, *MEMORY, *SIZE, "tokens", "hidden")))
"""Every column, in the order of ``features``; the last two only bound what a predictor may be asked."""
BOUNDED: tuple[str, ...] = tuple(name for name in FEATURES if name not in (*KERNELS, "activation_bytes"))
"""Columns that must lie within the fitted range. Left free are how many linear maps differ and what activations take:
both grow where layers of several widths meet, and what they are made of is bounded by the other columns."""

NOMINAL = Machine(lanes=16, registers=32, dot=vnni(16), nibbles=nibble_vnni(16), half=dpbf16ps(16))
"""Activations are those of a library for a processor with AVX-512, VNNI and BF16, whatever the device: a shape's
features are to be the same everywhere. On other processors, quantized or rounded activations take more or fewer bytes.
"""


def features(shape: ModelShape, tokens: int) -> Row:
    """Return the (``len(FEATURES)``,) numbers of a model that reads one sequence of ``tokens`` tokens.

    Multiply-accumulates and elements are those of one inference, all of them as the encoder graph runs them
    (``compiler.graph.emit``); bytes are bytes.
    """
    columns = dict.fromkeys(FEATURES, 0.0)
    for name, value in (*_work(shape, tokens), *_bytes(shape, tokens)):
        columns[name] += value
    return np.array([columns[name] for name in FEATURES])


def features_many(shapes: Iterable[ModelShape], tokens: int) -> npt.NDArray[np.float64]:
    """Return ``features`` of each shape as the rows of one array (shapes x ``len(FEATURES)``)."""
    return np.array([features(shape, tokens) for shape in shapes]).reshape(-1, len(FEATURES))


def columns(rows: npt.NDArray[np.float64], names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return the columns ``names`` of rows that ``features`` made."""
    return rows[..., [FEATURES.index(name) for name in names]]


def _work(shape: ModelShape, tokens: int) -> Iterator[tuple[str, float]]:
    yield "constant", 1.0
    yield "tokens", tokens
    yield "hidden", shape.hidden
    yield "layers", len(shape.layers)
    yield f"embedding_elements_{shape.embedding_bits}", tokens * shape.token_width
    if shape.embedding_rank:
        yield from _gemm(tokens, shape.embedding_rank, shape.embedding, 32)
    yield "channel_elements", tokens * shape.embedding
    if shape.embedding != shape.hidden:
        yield from _gemm(tokens, shape.embedding, shape.hidden, 32)
    for layer in shape.layers:
        yield from _layer_work(layer, shape.hidden, tokens)
    yield from _gemm(1, shape.hidden, shape.hidden + shape.classes, 32)


def _layer_work(layer: LayerShape, hidden: int, tokens: int) -> Iterator[tuple[str, float]]:
    yield from _gemm(tokens, hidden, 3 * layer.attention, layer.attention_bits)
    yield from _gemm(tokens, layer.attention, hidden, layer.attention_bits)
    yield from _gemm(tokens, hidden, layer.ffn, layer.ffn_bits)
    yield from _gemm(tokens, layer.ffn, hidden, layer.ffn_bits)
    yield "attention_macs", 2 * tokens * tokens * layer.attention
    yield "softmax_elements", layer.heads * tokens * tokens
    yield "heads", layer.heads
    yield "channel_elements", tokens * hidden
    yield "attention_elements", tokens * layer.attention
    yield "ffn_elements", tokens * layer.ffn


def _gemm(rows: int, inputs: int, outputs: int, bits: Bits) -> Iterator[tuple[str, float]]:
    yield f"gemm_macs_{bits}", rows * inputs * outputs
    yield f"gemm_weights_{bits}", inputs * outputs
    if bits != 32:
        yield f"quantized_elements_{bits}", rows * inputs
    if bits == 8:
        yield "dequantized_elements", rows * outputs


def _bytes(shape: ModelShape, tokens: int) -> Iterator[tuple[str, float]]:
    for name, spec in weight_specs(shape).items():
        yield "position_bytes" if name == "embeddings.position" else "weight_bytes", spec.size_bytes
        if name in ("embeddings.word", "embeddings.scale"):
            yield f"embedding_bytes_{shape.embedding_bits}", spec.size_bytes
        elif name.endswith(".weight") and len(spec.dimensions) == 2:
            yield f"linear_bytes_{_STORED_BITS[spec.dtype]}", spec.size_bytes
    program = lower(shape, tokens=tokens, machine=NOMINAL)
    yield "activation_bytes", activation_bytes(program) + workspace_bytes(program, threads=1)
    different = {kernel for layer in shape.layers for kernel in _linear_maps(layer)}
    for bits in BITS:
        yield f"kernels_{bits}", sum(kernel[-1] == bits for kernel in different)


def _linear_maps(layer: LayerShape) -> Iterator[tuple[str, int, Bits]]:
    for name, width, bits in (("attention", layer.attention, layer.attention_bits), ("ffn", layer.ffn, layer.ffn_bits)):
        yield f"{name} in", width, bits
        yield f"{name} out", width, bits


_STORED_BITS: dict[Stored, Bits] = {"f32": 32, "bf16": 16, "i8": 8, "i4": 4, "i2": 2}
