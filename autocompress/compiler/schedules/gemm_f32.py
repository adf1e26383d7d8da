"""y = activation(x @ W + bias) in f32, with W in column panels and a tile of y kept in vector registers."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.graph import Activation
from autocompress.compiler.machine import Tile, tile_rows
from autocompress.compiler.schedules.elementwise import activate
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    Register,
    argument,
    ask_for_next,
    kernel,
    load,
    multiply,
    on_stack,
    parallel_tiles,
    spans,
    store,
)


@dataclass(frozen=True)
class Epilogue:
    """What happens to a finished tile: to f32, plus bias, activation, into the columns of y that exist."""

    y: Buffer
    bias: Buffer
    columns: int
    activation: Activation | None
    tile: Tile

    def write(self, values: list[list[Expr]], row: Expr, panel: Expr) -> None:
        """Store ``values`` (f32 vectors, one list a row) at the tile of (row, panel)."""
        full, rest = divmod(self.columns, self.tile.panel)
        if not rest:
            self._store(values, row, panel)
            return
        if full:
            with ir.If(panel < full), ir.Then():
                self._store(values, row, panel)
        with ir.If(panel == full), ir.Then():
            self._store_part(values, row, panel, rest)

    def _store(self, values: list[list[Expr]], row: Expr, panel: Expr) -> None:
        lanes = self.tile.lanes
        for index, line in enumerate(values):
            for at, value in enumerate(line):
                self._finish(value, row + index, panel, at * lanes, lanes)

    def _store_part(self, values: list[list[Expr]], row: Expr, panel: Expr, columns: int) -> None:
        lanes = self.tile.lanes
        done = on_stack((len(values), self.tile.panel))
        for index, line in enumerate(values):
            for at, value in enumerate(line):
                store(done, value, index, start=at * lanes, lanes=lanes)
        with ir.serial(0, len(values)) as index:
            for start, count in spans(columns, lanes):
                self._finish(load(done, index, start=start, lanes=count), row + index, panel, start, count)

    def _finish(self, value: Expr, row: Expr, panel: Expr, start: int, lanes: int) -> None:
        value = value + load(self.bias, panel, start=start, lanes=lanes)
        if self.activation is not None:
            value = activate(value, self.activation, lanes)
        store(self.y, value, row, start=panel * self.tile.panel + start, lanes=lanes)


def gemm_f32(name: str, *, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile) -> Kernel:
    """Return the kernel (x, W panels, bias panels, y)."""

    def write() -> None:
        count, height = tile.panels(columns), tile_rows(rows, tile.rows)
        x = argument("x", (rows, depth))
        w = argument("w", (count, depth, tile.panel))
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        with parallel_tiles(rows, height, count) as (panel, row):
            sums = multiply(
                height,
                spans(tile.panel, tile.lanes),
                depth,
                lambda index, k: load(x, row + index, start=k, lanes=1),
                lambda span, k: load(w, panel, k, start=span[0], lanes=span[1]),
                lambda k: ask_for_next(w, panel, row, k, rows=rows, height=height) if tile.ahead else None,
            )
            epilogue.write(finished(sums), row, panel)

    return kernel(name, write)


def finished(sums: list[list[Register]]) -> list[list[Expr]]:
    """Return the values of the registers of a tile."""
    return [[total.get() for total in line] for line in sums]
