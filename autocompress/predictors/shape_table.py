"""Many shapes as arrays, so that a search can ask about all of them without making an object of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import numpy.typing as npt

from autocompress.shape import EmbeddingBits, LayerShape, ModelShape

Codes = npt.NDArray[np.intp]
Integers = npt.NDArray[np.integer]

ABSENT = -1
"""Code of a layer that a shape does not have."""


@dataclass(frozen=True, eq=False)
class ShapeTable(Sequence[ModelShape]):
    """A sequence of shapes.

    Attributes:
        frames: Models without layers: all that a shape has beside them.
        frame_codes: (shapes,) index of each shape's frame.
        layers: Different layers.
        layer_codes: (shapes x most layers) index of each layer, first to last, ``ABSENT`` anywhere in between.
    """

    frames: tuple[ModelShape, ...]
    frame_codes: Codes
    layers: tuple[LayerShape, ...]
    layer_codes: Codes

    @classmethod
    def of(cls, shapes: Iterable[ModelShape]) -> ShapeTable:
        """Return a table of ``shapes``."""
        frames: dict[ModelShape, int] = {}
        layers: dict[LayerShape, int] = {}
        frame_codes, layer_codes = [], []
        for shape in shapes:
            frame_codes.append(frames.setdefault(replace(shape, layers=()), len(frames)))
            layer_codes.append([layers.setdefault(layer, len(layers)) for layer in shape.layers])
        codes = np.full((len(layer_codes), max(map(len, layer_codes), default=0)), ABSENT, np.intp)
        for row, known in zip(codes, layer_codes, strict=True):
            row[: len(known)] = known
        return cls(tuple(frames), np.array(frame_codes, np.intp), tuple(layers), codes)

    @classmethod
    def of_choices(
        cls,
        teacher: ModelShape,
        *,
        kept: npt.NDArray[np.bool_],
        heads: Integers,
        ffn: Integers,
        attention_in_bits: Integers,
        attention_out_bits: Integers,
        ffn_in_bits: Integers,
        ffn_out_bits: Integers,
        embedding_bits: Integers,
    ) -> ShapeTable:
        """Return a table of shapes within ``teacher``.

        Args:
            teacher: Gives everything that is not chosen; L layers.
            kept: (shapes x L) which layers are left.
            heads: (shapes x L), or what broadcasts to it, like the next five: see ``LayerShape``.
            ffn: Neurons.
            attention_in_bits: Of the weights of queries, keys and values.
            attention_out_bits: Of the other attention weights.
            ffn_in_bits: Of the first feed-forward weights.
            ffn_out_bits: Of the second.
            embedding_bits: (shapes,), or what broadcasts to it.
        """
        head_width = np.array([layer.head_width for layer in teacher.layers])
        bits = attention_in_bits, attention_out_bits, ffn_in_bits, ffn_out_bits
        choices = np.broadcast_arrays(heads, head_width, ffn, *bits, kept)[:-1]
        codes, firsts = _distinct([choice[kept] for choice in choices])
        values = zip(*(choice[kept][firsts].tolist() for choice in choices), strict=True)
        layer_codes = np.full(kept.shape, ABSENT, np.intp)
        layer_codes[kept] = codes
        tables, frame_codes = np.unique(np.broadcast_to(embedding_bits, kept.shape[:1]), return_inverse=True)
        stored: list[EmbeddingBits] = tables.tolist()
        frames = tuple(replace(teacher, layers=(), embedding_bits=width) for width in stored)
        return cls(frames, frame_codes.astype(np.intp), tuple(LayerShape(*value) for value in values), layer_codes)

    def kinds(self, tokens: int) -> tuple[list[tuple[LayerShape, int]], Codes]:
        """Return layers with how many of ``tokens`` tokens reach them, and which each shape has, as ``layer_codes``."""
        if not any(layer.most_tokens for layer in self.layers):
            return [(layer, tokens) for layer in self.layers], self.layer_codes
        most = np.array([*(layer.passes_on(tokens) for layer in self.layers), tokens])  # The last is of absent layers.
        left = np.minimum.accumulate(most[self.layer_codes], axis=1)
        reaching = np.column_stack([np.full(len(self), tokens), left[:, :-1]])
        present = self.layer_codes != ABSENT
        columns = self.layer_codes[present], reaching[present]
        numbers, firsts = _distinct(columns)
        codes = np.full(self.layer_codes.shape, ABSENT, np.intp)
        codes[present] = numbers
        pairs = zip(*(column[firsts].tolist() for column in columns), strict=True)
        return [(self.layers[code], count) for code, count in pairs], codes

    def __len__(self) -> int:
        return len(self.frame_codes)

    @overload
    def __getitem__(self, index: int) -> ModelShape: ...

    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.generic]) -> ShapeTable: ...

    def __getitem__(self, index: int | slice | npt.NDArray[np.generic]) -> ModelShape | ShapeTable:
        """Return one shape, or a table of those that a slice or an array of indices or booleans picks."""
        if isinstance(index, slice | np.ndarray):
            return replace(self, frame_codes=self.frame_codes[index], layer_codes=self.layer_codes[index])
        codes = self.layer_codes[index].tolist()
        layers = tuple(self.layers[code] for code in codes if code != ABSENT)
        return replace(self.frames[int(self.frame_codes[index])], layers=layers)


def _distinct(columns: Sequence[Integers]) -> tuple[Codes, Codes]:
    """Return for rows of non-negative ``columns`` the code of each, and a row that has it for each code.

    Each column's values are numbered first, then pairs of numbers, and so on: bounded tables do what sorting would.
    """
    codes = np.zeros(columns[0].shape, np.intp)
    for column in columns:
        numbers = _numbered(column.astype(np.intp))
        codes = _numbered(codes * (int(numbers.max(initial=0)) + 1) + numbers)
    firsts = np.zeros(int(codes.max(initial=-1)) + 1, np.intp)
    firsts[codes] = np.arange(len(codes))
    return codes, firsts


def _numbered(values: Codes) -> Codes:
    """Return 0, 1, ... for the different ``values`` (>= 0), ascending."""
    if values.max(initial=0) > 4 * len(values) + 1024:
        return np.unique(values, return_inverse=True)[1]
    seen = np.zeros(int(values.max(initial=0)) + 1, bool)
    seen[values] = True
    return (np.cumsum(seen) - 1)[values]
