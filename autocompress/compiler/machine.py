"""What the kernels need to know about a processor: its vectors, its dot products, and the tiles that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Dot:
    """How a processor adds the products of a few neighbouring 8-bit values to a vector of int32 sums.

    ``intrinsics.dot`` holds the instructions of each name.

    Attributes:
        name: Of the instruction.
        lanes: Columns of one vector of sums.
        group: Neighbours along the depth that one step multiplies and adds.
        stored: Type in which the activations are kept.
        shift: Subtracted from a uint8 activation before it is stored.
    """

    name: str
    lanes: int
    group: int
    stored: str
    shift: int = 0


def vnni(lanes: int) -> Dot:
    """AVX-512 VNNI or AVX-VNNI: four uint8 x int8 products a lane."""
    return Dot("vnni", lanes, 4, "uint8")


def usdot() -> Dot:
    """Arm I8MM: four uint8 x int8 products a lane."""
    return Dot("usdot", 4, 4, "uint8")


def sdot() -> Dot:
    """Arm DotProd: four int8 x int8 products a lane, so activations are stored less 128."""
    return Dot("sdot", 4, 4, "int8", shift=128)


def smlal() -> Dot:
    """Any 64-bit Arm: one int16 product a lane."""
    return Dot("smlal", 4, 1, "int16")


def pmaddwd(lanes: int) -> Dot:
    """SSE2, AVX2 or AVX-512BW: two int16 products a lane, which cannot saturate for 8-bit values."""
    return Dot("pmaddwd", lanes, 2, "int16")


def widening(lanes: int) -> Dot:
    """Any target: both sides widened to int32 and multiplied."""
    return Dot("widening", lanes, 1, "uint8")


def nibble_vnni(lanes: int) -> Dot:
    """AVX-512 VNNI or AVX-VNNI, the weights on the unsigned side."""
    return Dot("vnni", lanes, 4, "int8")


def nibble_maddubs(lanes: int) -> Dot:
    """AVX2 or AVX-512BW: pairs of byte products, then pairs of these."""
    return Dot("maddubs", lanes, 4, "int8")


def nibble_sdot() -> Dot:
    """Arm DotProd: weights of 0..15 fit the signed side as well."""
    return Dot("sdot", 4, 4, "int8")


def nibble_widening(dot: Dot) -> Dot:
    """Any ``dot`` that widens both sides anyway (``pmaddwd``, ``smlal``, ``widening``): so does it with nibbles."""
    return Dot(dot.name, dot.lanes, dot.group, "int8" if dot.stored == "uint8" else dot.stored)


@dataclass(frozen=True)
class Tile:
    """What one panel of a matrix product looks like.

    Attributes:
        rows: Most rows of a tile.
        panel: Columns of a panel, a multiple of ``lanes``.
        lanes: 32-bit values in one vector register.
    """

    rows: int
    panel: int
    lanes: int

    def panels(self, columns: int) -> int:
        """Return how many panels hold ``columns``."""
        return -(-columns // self.panel)


class Tiles(Protocol):
    """How the tile of a matrix product is chosen: by ``Machine.rule``, or by what was measured."""

    def __call__(self, family: str, rows: int, depth: int, columns: int) -> Tile:
        """Return the tile of a product of ``rows`` x ``columns``, ``depth`` deep, by a family of kernels."""


@dataclass(frozen=True)
class Machine:
    """What kernels depend on.

    Attributes:
        lanes: f32 values in a vector register.
        registers: Vector registers.
        dot: The product of uint8 activations and int8 weights.
        nibbles: The product of int8 activations (-127..127) and weights of 0..15.
    """

    lanes: int
    registers: int
    dot: Dot
    nibbles: Dot

    def tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of ``rows`` x ``columns``, measured in decision 0005.

        Few rows make few sums; wider panels then keep enough of them apart to hide how long one addition takes.
        """
        most, vectors = (8 if self.registers >= 32 else 6), -(-columns // self.lanes)
        widest = 4 if 2 * rows <= most and vectors >= 4 else 2
        return Tile(rows=most, panel=min(widest, vectors) * self.lanes, lanes=self.lanes)

    def nibble_tile(self, rows: int, columns: int) -> Tile:
        """Return the register tile of a product of 4-bit weights.

        Every vector of it takes two registers: the integer sum of a group, and the total. Tall tiles share an unpacked
        weight among most rows; few rows leave registers for more columns.
        """
        most = 8 if self.registers >= 32 else 6
        vectors = min(max(1, most // rows), -(-columns // self.lanes))
        return Tile(rows=most, panel=vectors * self.lanes, lanes=self.lanes)

    def rule(self, family: str, rows: int, depth: int, columns: int) -> Tile:
        """Return the tile of a product where nothing was measured (a ``Tiles``)."""
        return (self.nibble_tile if family == "gemm_i4" else self.tile)(rows, columns)

    def dot_name(self, family: str) -> str:
        """Return what a family multiplies with, and how many columns at once, e.g. ``vnni16``."""
        dot = {"gemm_i8": self.dot, "gemm_i4": self.nibbles}.get(family)
        return f"{dot.name}{dot.lanes}" if dot else f"lanes{self.lanes}"
