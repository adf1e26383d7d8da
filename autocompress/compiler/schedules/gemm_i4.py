"""y = activation(x @ W + bias) with W at 4 bits in memory: a panel is unpacked once, into the cache, for all rows."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as ir

from autocompress.compiler.graph import Activation, Array, groups
from autocompress.compiler.schedules.embed import nibbles
from autocompress.compiler.schedules.gemm_f32 import Epilogue, Tile, finished, panels
from autocompress.compiler.schedules.vectors import (
    Buffer,
    Expr,
    Kernel,
    argument,
    first_row,
    kernel,
    load,
    multiply,
    spans,
    store,
    tile_rows,
)
from autocompress.shape import WEIGHT_GROUP


def nibble_panels(values: Array, panel: int) -> Array:
    """Pack (depth x columns) values -8..7 into (panels x depth x panel / 2) bytes.

    Byte j of a row holds column j of the panel in its low and column j + panel / 2 in its high half, each plus 8.
    """
    split = panels(values.astype(np.int16) + 8, panel).astype(np.uint8)
    low, high = split[:, :, : panel // 2], split[:, :, panel // 2 :]
    return np.ascontiguousarray(low | (high << 4))


def gemm_i4(name: str, *, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile) -> Kernel:
    """Return the kernel (x, W nibble panels, W scale (panels x groups x panel), bias panels, y)."""
    count, height = -(-columns // tile.panel), tile_rows(rows, tile.rows)

    def write() -> None:
        x = argument("x", (rows, depth))
        w = argument("w", (count, depth, tile.panel // 2), "uint8")
        scale = argument("scale", (count, groups(depth), tile.panel))
        bias = argument("bias", (count, tile.panel))
        epilogue = Epilogue(argument("y", (rows, columns)), bias, columns, activation, tile)
        with ir.parallel(0, count) as panel:
            dense = ir.alloc_buffer((depth, tile.panel), "float32")
            _unpack(w, scale, dense, panel, depth, tile)
            with ir.serial(0, -(-rows // height)) as at:
                row = first_row(at, rows, height)
                sums = multiply(
                    height,
                    spans(tile.panel, tile.lanes),
                    depth,
                    lambda index, k: load(x, row + index, start=k, lanes=1),
                    lambda span, k: load(dense, k, start=span[0], lanes=span[1]),
                )
                epilogue.write(finished(sums), row, panel)

    return kernel(name, write)


def _unpack(w: Buffer, scale: Buffer, dense: Buffer, panel: Expr, depth: int, tile: Tile) -> None:
    half = tile.panel // 2

    def line(group: Expr, k: Expr) -> None:
        for start, lanes in spans(half, tile.lanes):
            packed = load(w, panel, k, start=start, lanes=lanes)
            for shift, column in ((0, start), (4, half + start)):
                step = load(scale, panel, group, start=column, lanes=lanes)
                store(dense, nibbles(packed, shift, lanes) * step, k, start=column, lanes=lanes)

    full, rest = divmod(depth, WEIGHT_GROUP)
    if full:
        with ir.serial(0, full) as group, ir.serial(0, WEIGHT_GROUP) as k:
            line(group, group * WEIGHT_GROUP + k)
    if rest:
        with ir.serial(0, rest) as k:
            line(full, full * WEIGHT_GROUP + k)
