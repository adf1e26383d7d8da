"""What the kernels need to know about a processor: its vectors, its dot products, and the tiles that fit."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.compiler.dots import Dot, HalfDot


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

    def tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of ``rows`` x ``columns``, measured in decision 0005.

        Few rows make few sums; wider panels then keep enough of them apart to hide how long one addition takes.
        """
        most, vectors = (8 if self.registers >= 32 else 6), -(-columns // self.lanes)
        widest = 4 if 2 * rows <= most and vectors >= 4 else 2
        return Tile(most, min(widest, vectors) * self.lanes, self.lanes, self._ahead(rows, most))

    def nibble_tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of 4-bit weights.

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
