"""Weights in the order in which the kernels read them; done once, when a library is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autocompress.compiler.dots import Dot, HalfDot
from autocompress.compiler.graph import Array, groups
from autocompress.errors import UnsupportedError
from autocompress.shape import WEIGHT_GROUP, WeightGrid


@dataclass(frozen=True)
class Field:
    """Some bits of a weight: ``byte >> shift & mask`` of the byte in ``line``; a weight is all its fields, or-ed."""

    line: int
    shift: int
    mask: int


FIELDS: Mapping[int, tuple[tuple[Field, ...], ...]] = {
    4: ((Field(0, 0, 15),), (Field(0, 4, 15),)),
    3: (
        (Field(0, 0, 7),),
        (Field(0, 3, 7),),
        (Field(1, 0, 7),),
        (Field(1, 3, 7),),
        (Field(1, 6, 3), Field(0, 4, 4)),
        (Field(2, 0, 7),),
        (Field(2, 3, 7),),
        (Field(2, 6, 3), Field(0, 5, 4)),
    ),
    2: tuple((Field(0, shift, 3),) for shift in (0, 2, 4, 6)),
    8: ((Field(0, 0, 255),),),
}
"""Bits -> where those of each weight lie that share their bytes. Of eight weights of 3 bits six lie whole in three
bytes, and two in what these have left: that takes 17 shifts, masks and ors, planes of 2 and of 1 bits 35."""


def lines_of(steps: int, bits: int) -> int:
    """Return how many bytes hold ``steps`` weights of ``bits``, a multiple of those that share theirs."""
    return steps * bits // 8


def offset_of(bits: int, dot: Dot | None = None) -> int:
    """Return what is added to a weight of so many bits before it is stored, so that it is not negative.

    That is 0 for bytes that ``dot`` multiplies as signed ones.
    """
    return 0 if bits == 8 and dot is not None and dot.signed else 1 << (bits - 1)


def panels(values: Array, panel: int) -> Array:
    """Reorder (depth x columns) into (panels x depth x panel), zeros in the columns that are missing."""
    depth, columns = values.shape
    count = -(-columns // panel)
    padded = np.zeros((depth, count * panel), values.dtype)
    padded[:, :columns] = values
    return np.ascontiguousarray(padded.reshape(depth, count, panel).transpose(1, 0, 2))


def row_panels(values: Array, panel: int) -> Array:
    """Pad one value a column to (panels x panel)."""
    return panels(values.reshape(1, -1), panel)[:, 0]


def dot_panels(values: Array, panel: int, group: int) -> Array:
    """Reorder int8 (depth x columns) into (panels x depth / group x panel * group): a group's neighbours together."""
    depth, columns = values.shape
    steps, count = -(-depth // group), -(-columns // panel)
    padded = np.zeros((steps * group, count * panel), np.int8)
    padded[:depth, :columns] = values
    split = padded.reshape(steps, group, count, panel).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(split).reshape(count, steps, panel * group)


def column_sums(values: Array, panel: int) -> Array:
    """Return the int32 sum of each column, in panels: what a zero point of 1 would add."""
    return panels(values.astype(np.int32).sum(axis=0, dtype=np.int32).reshape(1, -1), panel)[:, 0]


def grouped_panels(values: Array, panel: int, dot: Dot, bits: int, grid: WeightGrid) -> Array:
    """Pack (depth x columns) levels of up to 8 bits into (panels x padded depth / group * bits / 8 x panel * group).

    ``dot.group`` neighbours along the depth lie together, as one dot product reads them; such steps share bytes as
    ``FIELDS`` has it. The depth is padded to whole groups of ``grid``.
    """
    (depth, columns), fields, offset = values.shape, FIELDS[bits], offset_of(bits, dot)
    padded_depth, count, group = grid.count(depth) * grid.group, -(-columns // panel), dot.group
    padded = np.full((padded_depth, count * panel), offset, np.uint8)
    padded[:depth, :columns] = (values.astype(np.int16) + offset).astype(np.uint8)
    split = padded.reshape(-1, len(fields), group, count, panel).transpose(3, 0, 1, 4, 2)
    steps = split.reshape(count, -1, len(fields), panel * group)
    packed = np.zeros((*steps.shape[:2], lines_of(len(fields), bits), panel * group), np.uint8)
    for step, parts in enumerate(fields):
        for part in parts:
            packed[:, :, part.line] |= (steps[:, :, step] & part.mask) << part.shift
    return packed.reshape(count, -1, panel * group)


def zero_panels(values: Array, panel: int, bits: int) -> Array:
    """Return zero points (groups x columns) of levels below 8 bits in panels, as levels are stored: a byte each."""
    return panels((values.astype(np.int16) + offset_of(bits)).astype(np.uint8), panel)


def nibble_rows(values: Array) -> Array:
    """Pack (rows x width) values -8..7 into (rows x groups * 16) bytes.

    Byte j of a group holds channel j in its low and channel 16 + j in its high half, each plus 8.
    """
    rows, width = values.shape
    padded = np.full((rows, groups(width) * WEIGHT_GROUP), offset_of(4), np.uint8)
    padded[:, :width] = (values.astype(np.int16) + offset_of(4)).astype(np.uint8)
    halves = padded.reshape(rows, -1, 2, WEIGHT_GROUP // 2)
    return np.ascontiguousarray(halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(rows, -1)


def half_panels(values: Array, panel: int, dot: HalfDot) -> Array:
    """Pack f32 (depth x columns) into (panels x depth / packed x panel * packed): ``packed`` neighbours together.

    As f16, weights of at least 2^-17 stay what they are; smaller ones are rounded to a multiple of 2^-24.

    Raises:
        UnsupportedError: A weight is no bfloat16 number, or too large for the type in which ``dot`` keeps it.
    """
    depth, columns = values.shape
    steps, count = -(-depth // dot.packed), -(-columns // panel)
    padded = np.zeros((steps * dot.packed, count * panel), np.float32)
    padded[:depth, :columns] = values
    split = padded.reshape(steps, dot.packed, count, panel).transpose(2, 0, 3, 1)
    return _kept(np.ascontiguousarray(split), dot).reshape(count, steps, panel * dot.packed)


def _kept(values: Array, dot: HalfDot) -> Array:
    bits = values.view(np.uint32)
    most = np.finfo(np.float16 if dot.weights == "float16" else np.float32).max
    if (bits & 0xFFFF).any() or not np.abs(values).max(initial=0) <= most:
        raise UnsupportedError(
            "The weights are not all numbers that the 16-bit product can keep.",
            right=f"They are bfloat16 numbers up to {most:.5g} for {dot.name}.",
            next_step="Round them to bfloat16 first, or keep this layer in 32 bits.",
        )
    return values.astype(np.float16) if dot.weights == "float16" else (bits >> 16).astype(np.uint16)
