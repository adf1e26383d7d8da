"""What the features of a shape know of a processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import lcm
from typing import Any

from autocompress.compiler.dots import Dot, HalfDot, dpbf16ps, nibble_vnni, vnni
from autocompress.compiler.machine import Machine, tile_rows
from autocompress.shape import WEIGHT_GROUP, Bits, WeightGrid

_FAMILIES: dict[Bits, str] = {
    32: "gemm_f32",
    16: "gemm_f16",
    8: "gemm_i8",
    4: "gemm_grouped_4",
    3: "gemm_grouped_3",
    2: "gemm_grouped_2",
}


@dataclass(frozen=True)
class Hardware:
    """A processor.

    Attributes:
        machine: Its vectors, dot products and, by the rule, tiles.
        l2_bytes: What one core holds of a matrix between two uses: the second cache, or the nearest that is known.
    """

    machine: Machine
    l2_bytes: int

    @classmethod
    def of(cls, machine: Machine, *, l1d_bytes: int, l2_bytes: int | None, l3_bytes: int | None) -> Hardware:
        """Return a processor some of whose caches are missing or not known (``devices.profile.Caches``).

        Without a second cache the nearest known one holds matrices.
        """
        return cls(machine, l2_bytes or l3_bytes or l1d_bytes)

    def padded_macs(self, rows: int, depth: int, columns: int, bits: Bits, grid: WeightGrid | None = None) -> int:
        """Return the multiply-accumulates of the whole tiles that cover a product, as its kernel runs them.

        Args:
            rows: Of what is multiplied.
            depth: Its channels.
            columns: Of the weights.
            bits: Of these.
            grid: In what groups they are; ``None``: as weights of so many bits usually are.
        """
        family = f"gemm_grouped_{bits}" if grid else _FAMILIES[bits]
        tile = self.machine.rule(family, rows, depth, columns)
        height = tile_rows(rows, tile.rows)
        return _up(rows, height) * _up(depth, grid.group if grid else self._together(bits)) * _up(columns, tile.panel)

    def alignment(self, rows: int, depth: int, columns: int, bits: Iterable[Bits]) -> int:
        """Return the multiple in which channels between two products fill whole tiles of both, at each of ``bits``.

        They are columns of the first, in panels, and the depth of the second, in groups.

        Args:
            rows: Of both products.
            depth: Of the first.
            columns: Most channels in between.
            bits: Widths of weights, at least one.
        """
        panels = {width: self.machine.rule(_FAMILIES[width], rows, depth, columns).panel for width in bits}
        return lcm(*panels.values(), *map(self._together, panels))

    def has_dot(self, bits: Bits, grid: WeightGrid | None = None) -> bool:
        """Return whether one instruction multiplies and adds neighbours of weights of so many bits as they are."""
        machine = self.machine
        if grid is not None:
            return machine.in_groups(bits).group >= 4
        if bits == 32:
            return False
        if bits == 16:
            return machine.half.group > 1
        return (machine.dot if bits == 8 else machine.nibbles).group >= 4

    def _together(self, bits: Bits) -> int:
        if bits <= 4:
            return WEIGHT_GROUP
        return {32: 1, 16: self.machine.half.group, 8: self.machine.dot.group}[bits]

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Hardware:
        """Read what ``to_dict`` wrote."""
        parts = data["machine"]
        machine = Machine(
            **{
                **parts,
                "dot": Dot(**parts["dot"]),
                "nibbles": Dot(**parts["nibbles"]),
                "half": HalfDot(**parts["half"]),
            }
        )
        return cls(machine, data["l2_bytes"])


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


NOMINAL = Hardware(
    Machine(lanes=16, registers=32, dot=vnni(16), nibbles=nibble_vnni(16), half=dpbf16ps(16)),
    l2_bytes=1 << 20,
)
"""A processor with AVX-512, VNNI and BF16, for predictors that were not told of any."""
