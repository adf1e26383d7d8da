"""The one place where a shape becomes numbers: fitting and predicting both read these columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from autocompress.predictors.activations import SLOTS, layer_slots
from autocompress.predictors.hardware import NOMINAL, Hardware
from autocompress.predictors.shape_table import ABSENT, Codes, ShapeTable
from autocompress.predictors.work import Counts, frame_work, layer_work
from autocompress.shape import BITS, EMBEDDING_BITS, Bits, LayerShape, ModelShape, Order

Row: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.float64]

CACHES_MIB: tuple[int, ...] = (1, 4, 16)
"""Sizes of caches that a core may have to itself, in MiB: where models outgrow one, every byte of theirs costs more."""
BEYOND: tuple[str, ...] = tuple(f"beyond_{size}_mib" for size in CACHES_MIB)
SELECTION: tuple[str, ...] = ("selections", "received_elements", "taken_elements")
"""Layers that pass on fewer tokens, shares of attention that they sum up, and elements of the rows that they take."""
FIXED: tuple[str, ...] = ("fixed_ranges", "static_elements", "smoothed_elements")
"""Linear maps that read activations over a fixed range, and the elements that are quantized so, without and with
channels that are smoothed; ``quantized_elements_8`` are those whose range is found as the model runs."""
GROUPED: tuple[str, ...] = ("token_macs", "token_elements", "coarse_macs", "coarse_sums", "zero_point_sums")
"""Multiply-accumulates of 8-bit weights in groups of 32, and the elements that are quantized a token for 8-bit weights;
multiply-accumulates of weights in larger groups, whatever their bits, and how often a sum of theirs is scaled; and how
often a zero point is multiplied by a sum of activations. All other products are ``gemm_macs`` of their width."""
HEAD: tuple[str, ...] = tuple(f"head_maps_{bits}" for bits in BITS if bits != 32)
"""Linear maps of the head at fewer bits than it usually has, which read one token."""
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
    *SELECTION,
    *FIXED,
    *GROUPED,
    *HEAD,
    *(f"embedding_elements_{bits}" for bits in EMBEDDING_BITS),
    *BEYOND,
)
"""Columns that explain time, summed over layers: multiply-accumulates, weights read, elements touched, calls; and of
the whole model, bytes of linear maps for which caches have no room. Elements that are quantized at 16 bits are those
that processors with products of bfloat16 round to it."""
MEMORY: tuple[str, ...] = (
    "constant",
    "layers",
    *(f"linear_bytes_{bits}" for bits in BITS),
    *(f"embedding_bytes_{bits}" for bits in EMBEDDING_BITS),
    "zero_points",
    "activation_bytes",
)
"""Columns that explain resident memory: bytes of weights by kind, bytes of activations and workspace about as
they are planned (``activations.layer_slots``)."""
KERNELS: tuple[str, ...] = tuple(f"kernels_{bits}" for bits in BITS)
SIZE: tuple[str, ...] = (
    "constant",
    "layers",
    "selections",
    "fixed_ranges",
    "weight_bytes",
    "linear_bytes_3",
    "zero_points",
    "position_bytes",
    *HEAD,
    *KERNELS,
)
"""Columns that explain bytes on disk: weights as packed, what an engine may add that stores those of 3 bits wider
(``engines.STORED_AS``) or zero points a byte each, the position table (a compiled library keeps only the rows it
needs), what the container adds to each layer and to maps of fixed ranges, and linear maps that differ (a library holds
code for each)."""
HARDWARE: tuple[str, ...] = (
    *(f"padded_macs_{bits}" for bits in BITS),
    "dot_macs",
    "beyond_l2_bytes",
)
"""Columns that know the processor: multiply-accumulates of whole tiles, those of them that a dot-product instruction
runs, and bytes of weights for which, matrix by matrix, the second cache has no room."""
BOUNDS: tuple[str, ...] = ("tokens", "hidden", "pixels", "norms_first")
"""Columns that only bound what a predictor may be asked; the last is 1 where a layer norms what its parts read."""
FEATURES: tuple[str, ...] = tuple(dict.fromkeys((*LATENCY, *MEMORY, *SIZE, *BOUNDS, *HARDWARE)))
"""Every column, in the order of ``features``."""
BOUNDED: tuple[str, ...] = tuple(
    name for name in FEATURES if name not in (*KERNELS, "activation_bytes", *BEYOND, *HARDWARE)
)
"""Columns that must lie within the fitted range. Left free are how many linear maps differ and what activations take:
both grow where layers of several widths meet, and what they are made of is bounded by the other columns, as is what
caches and processors make of them."""


def features(shape: ModelShape, tokens: int, hardware: Hardware = NOMINAL) -> Row:
    """Return the (``len(FEATURES)``,) numbers of a model that reads one sequence of ``tokens`` tokens, or one image.

    Multiply-accumulates and elements are those of one inference, all of them as the encoder graph runs them
    (``compiler.graph.emit``); bytes are bytes. All are sums over layers but ``beyond_*_mib``, which follow from sums,
    ``kernels_*``, which count what differs, and ``activation_bytes``, the largest of each slot, summed.
    """
    counter = _counter(tokens, hardware)
    frame = counter.frame(*_FRAME(shape))
    layers = counter.layers(shape)
    counted = np.array([frame, *(layer.counted for layer in layers)])
    kernels = [0] * len(BITS)
    for linear in {linear for layer in layers for linear in layer.maps}:
        kernels[BITS.index(linear[-1])] += 1
    row = counted[:, : len(FEATURES)].sum(axis=0)
    return _complete(row, counted[:, len(FEATURES) :].max(axis=0), np.array(kernels))


def layer_rows(shape: ModelShape, tokens: int, hardware: Hardware = NOMINAL) -> Rows:
    """Return (1 + layers x ``len(FEATURES)``) what embeddings and head, then each layer, add to ``features``.

    The columns that are no sums over layers are 0.
    """
    counter = _counter(tokens, hardware)
    layers = [layer.counted for layer in counter.layers(shape)]
    return np.array([counter.frame(*_FRAME(shape)), *layers])[:, : len(FEATURES)]


def features_many(shapes: Iterable[ModelShape], tokens: int, hardware: Hardware = NOMINAL) -> Rows:
    """Return ``features`` of each shape as the rows of one array (shapes x ``len(FEATURES)``).

    The rows of a ``ShapeTable`` take about a microsecond each; of anything else a table is made first.
    """
    table = shapes if isinstance(shapes, ShapeTable) else ShapeTable.of(shapes)
    counter, rows = _counter(tokens, hardware), np.empty((len(table), len(FEATURES)))
    streams = [_STREAM(frame) for frame in table.frames]
    for stream in dict.fromkeys(streams):
        alike = np.array([other == stream for other in streams])[table.frame_codes]
        whole = bool(alike.all())
        rows[... if whole else alike] = counter.rows(table if whole else table[alike], *stream)
    return rows


def columns(rows: Rows, names: tuple[str, ...]) -> Rows:
    """Return the columns ``names`` of rows that ``features`` made."""
    return rows[..., [FEATURES.index(name) for name in names]]


_FRAME = attrgetter(
    *("vocabulary", "positions", "embedding", "hidden", "classes", "embedding_bits", "embedding_rank", "head_bits"),
    *("order", "head", "pixels"),
)
"""The fields of a shape, beside its layers, that decide what is counted."""
_STREAM = attrgetter("hidden", "embedding", "order")
"""Those that decide what a layer adds."""
_AT_ONCE = 4096
"""Shapes whose rows stay in the caches while they are made."""
_AT = {name: index for index, name in enumerate(FEATURES)}
_KERNELS = slice(_AT[KERNELS[0]], _AT[KERNELS[-1]] + 1)
_BEYOND = slice(_AT[BEYOND[0]], _AT[BEYOND[-1]] + 1)
_ROOM_BYTES = np.array(CACHES_MIB, dtype=np.float64) * (1 << 20)
_LINEAR = slice(_AT[f"linear_bytes_{BITS[0]}"], _AT[f"linear_bytes_{BITS[-1]}"] + 1)


_Map: TypeAlias = tuple[str, int, int, int, Bits]
"""Group of linears, inner width of its block, tokens into that and out of it, bits."""


class _Layer(NamedTuple):
    """What one layer adds: its features, then the slots of its activations; and which linear maps it has."""

    counted: Row
    maps: tuple[_Map, _Map, _Map, _Map]


class _Counter:
    """Counts layers and frames at so many tokens on a processor, each once: a search asks for few, again and again.

    Of the tokens, fewer may reach a layer.
    """

    def __init__(self, tokens: int, hardware: Hardware) -> None:
        self.tokens, self.hardware = tokens, hardware
        self.layer = lru_cache(maxsize=1 << 16)(self._layer)
        self.frame = lru_cache(maxsize=1 << 10)(self._frame)

    def layers(self, shape: ModelShape) -> list[_Layer]:
        """Count each layer of ``shape``."""
        pairs = zip(shape.layers, shape.tokens_reaching(self.tokens), strict=False)
        return [self.layer(layer, tokens, *_STREAM(shape)) for layer, tokens in pairs]

    def _layer(self, layer: LayerShape, tokens: int, hidden: int, embedding: int, order: Order) -> _Layer:
        machine, left = self.hardware.machine, layer.passes_on(tokens)
        slots = layer_slots(layer, hidden=hidden, embedding=embedding, order=order, tokens=tokens, machine=machine)
        row = _row(layer_work(layer, hidden, tokens, self.hardware))
        mixing, feeding = (layer.attention, tokens, left), (layer.ffn, left, left)
        maps = (
            ("attention_in", *mixing, layer.attention_in_bits),
            ("attention_out", *mixing, layer.attention_out_bits),
            ("ffn_in", *feeding, layer.ffn_in_bits),
            ("ffn_out", *feeding, layer.ffn_out_bits),
        )
        return _Layer(np.concatenate([row, slots]), maps)

    def _frame(self, vocabulary: int, positions: int, embedding: int, hidden: int, *fields: Any) -> Row:
        names = ("classes", "embedding_bits", "embedding_rank", "head_bits", "order", "head", "pixels")
        size = dict(zip(names, fields, strict=True))
        frame = ModelShape("", vocabulary, positions, embedding, hidden, (), **size)
        return np.concatenate([_row(frame_work(frame, self.tokens, self.hardware)), np.zeros(SLOTS)])

    def rows(self, table: ShapeTable, *stream: Any) -> Rows:
        """Return the features of shapes that all have this ``_STREAM``."""
        kinds, codes = table.kinds(self.tokens)
        absent = len(kinds)
        codes = np.where(codes == ABSENT, absent, codes)
        used = np.flatnonzero(np.bincount(codes.ravel(), minlength=absent + 1)[:absent]).tolist()
        layers = {code: self.layer(*kinds[code], *stream) for code in used}
        counted = np.zeros((absent + 1 + len(table.frames), len(FEATURES) + SLOTS))
        for code, layer in layers.items():
            counted[code] = layer.counted
        for code in np.unique(table.frame_codes).tolist():
            counted[absent + 1 + code] = self.frame(*_FRAME(table.frames[code]))
        maps, kernels = _maps(layers, absent)
        parts = np.ascontiguousarray(counted[:, : len(FEATURES)]), counted[:, len(FEATURES) :].copy()
        every = np.column_stack([absent + 1 + table.frame_codes, codes])
        rows = np.empty((len(table), len(FEATURES)))
        for start in range(0, len(table), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            differ = _summed(*_first_of_each(maps[some[:, 1:]].reshape(len(some), -1)), kernels)
            summed = _summed(some, np.ones(some.shape), parts[0])
            rows[start : start + len(some)] = _complete(summed, _largest(some, parts[1]), differ)
        return rows


_counter = lru_cache(maxsize=16)(_Counter)


def _row(counts: Counts) -> Row:
    row = np.zeros(len(FEATURES))
    for name, value in counts:
        row[_AT[name]] += value
    return row


def _complete(rows: Rows, slots: Rows, kernels: Rows) -> Rows:
    """Write the columns that are no sums over layers into ``rows`` (... x features)."""
    rows[..., _AT["activation_bytes"]] = slots.sum(axis=-1)
    linear_bytes = rows[..., _LINEAR].sum(axis=-1, keepdims=True)
    rows[..., _BEYOND] = np.maximum(0.0, linear_bytes - _ROOM_BYTES)
    rows[..., _KERNELS] = kernels
    return rows


def _maps(layers: dict[int, _Layer], absent: int) -> tuple[Codes, Rows]:
    """Return the codes of the linear maps of each layer, and for each such code a 1 at its bits."""
    known: dict[_Map, int] = {}
    codes = np.zeros((absent + 1, 4), np.intp)
    for code, layer in layers.items():
        codes[code] = [known.setdefault(linear, len(known) + 1) for linear in layer.maps]
    kernels = np.zeros((len(known) + 1, len(BITS)))
    for linear, code in known.items():
        kernels[code, BITS.index(linear[-1])] = 1
    return codes, kernels


def _first_of_each(codes: Codes) -> tuple[Codes, Rows]:
    """Return each row of ``codes`` in ascending order, and 1.0 where a code comes first in its row, else 0.0."""
    ordered = np.sort(codes, axis=1)
    first = np.ones(codes.shape)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return ordered, first


def _summed(codes: Codes, weights: Rows, table: Rows) -> Rows:
    """Return for each row of ``codes`` the sum of the rows of ``table`` that it names, times their weights."""
    ends = np.arange(len(codes) + 1) * codes.shape[1]
    picks = csr_array((weights.ravel(), codes.ravel(), ends), shape=(len(codes), len(table)))
    summed: Rows = picks @ table
    return summed


def _largest(codes: Codes, table: Rows) -> Rows:
    """Return for each row of ``codes`` the largest of each column of the rows of ``table`` that it names."""
    largest = table[codes[:, 0]]
    for column in codes[:, 1:].T:
        np.maximum(largest, table[column], out=largest)
    return largest
