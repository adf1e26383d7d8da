"""What the kernels need to know about a processor: its vectors, its dot products, and the tiles that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autocompress.compiler.dots import Dot, HalfDot, bytes_in_groups


def tile_rows(rows: int, most: int) -> int:
    """Return the height of equal tiles, at most ``most``, that cover ``rows`` with the least overlap."""
    return -(-rows // -(-rows // most))


@dataclass(frozen=True)
class Tile:
    """What one panel of a matrix product looks like.

    Attributes:
        rows: Most rows of a tile.
        panel: Columns of a panel, a multiple of ``lanes``.
        lanes: Values in one vector register of sums.
        ahead: Whether the next panel of weights is asked for, into the second cache, while this one is multiplied.
    """

    rows: int
    panel: int
    lanes: int
    ahead: bool = False

    def panels(self, columns: int) -> int:
        """Return how many panels hold ``columns``."""
        return -(-columns // self.panel)

    def __str__(self) -> str:
        """Say rows x columns, and + where it reads ahead."""
        return f"{self.rows}x{self.panel}{'+' * self.ahead}"


class Tiles(Protocol):
    """How the tile of a matrix product is chosen: by ``Machine.rule``, or by what was measured."""

    def __call__(self, family: str, rows: int, depth: int, columns: int) -> Tile:
        """Return the tile of a product of ``rows`` x ``columns``, ``depth`` deep.

        Args:
            family: Of the kernel, with the bits where it has several, e.g. ``gemm_i8`` and ``gemm_grouped_4``.
            rows: Of x.
            depth: Columns of x.
            columns: Of the weights.
        """


@dataclass(frozen=True)
class Machine:
    """What kernels depend on.

    Attributes:
        lanes: f32 values in a vector register.
        registers: Vector registers.
        dot: The product of uint8 activations and int8 weights.
        nibbles: The product of int8 activations (-127..127) and weights of 0..15.
        half: The product with bfloat16 weights.
        ahead: Whether it pays to ask for weights before they are needed.
    """

    lanes: int
    registers: int
    dot: Dot
    nibbles: Dot
    half: HalfDot
    ahead: bool = False

    def in_groups(self, bits: int) -> Dot:
        """Return the product of int8 activations and weights in groups, of so many bits."""
        return bytes_in_groups(self.nibbles) if bits == 8 else self.nibbles

    def tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of ``rows`` x ``columns``, measured in decision 0005.

        Few rows make few sums; wider panels then keep enough of them apart to hide how long one addition takes.
        """
        most, vectors = (8 if self.registers >= 32 else 6), -(-columns // self.lanes)
        widest = 4 if 2 * rows <= most and vectors >= 4 else 2
        return Tile(most, min(widest, vectors) * self.lanes, self.lanes, self._ahead(rows, most))

    def nibble_tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of weights of 4 bits and fewer.

        Every vector of it takes two registers: the integer sum of a group, and the total. Tall tiles share an unpacked
        weight among most rows; few rows leave registers for more columns.
        """
        most = 8 if self.registers >= 32 else 6
        vectors = min(max(1, most // rows), -(-columns // self.lanes))
        return Tile(most, vectors * self.lanes, self.lanes, self._ahead(rows, most))

    def half_tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of bfloat16 weights.

        Sums in f16 take a second register for their f32 totals, twice as wide; two rows fewer leave room for them.
        """
        lanes = self.half.lanes
        if lanes == self.lanes:
            return self.tile(rows, columns)
        return Tile(4, min(2, -(-columns // lanes)) * lanes, lanes, self._ahead(rows, 4))

    def _ahead(self, rows: int, most: int) -> bool:
        """Weights that only one tile reads come in a stream that the processor itself reads ahead."""
        return self.ahead and rows > most

    def rule(self, family: str, rows: int, depth: int, columns: int) -> Tile:
        """Return the tile of a product where nothing was measured (a ``Tiles``)."""
        if family == "gemm_f16":
            return self.half_tile(rows, columns)
        return (self.nibble_tile if family.startswith("gemm_grouped") else self.tile)(rows, columns)

    def multiplier(self, family: str) -> str:
        """Return what a family multiplies with, and how many columns at once, e.g. ``vnni16``."""
        dots: dict[str, Dot | HalfDot] = {
            "gemm_f16": self.half,
            "gemm_i8": self.dot,
            "gemm_grouped_8": self.in_groups(8),
        }
        if family == "gemm_f32":
            return f"lanes{self.lanes}"
        dot = dots.get(family, self.nibbles)
        return f"{dot.name}{dot.lanes}"
