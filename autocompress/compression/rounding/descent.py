"""Levels changed one at a time, each to the best there is while all others stay, until none changes.

Source: QuantEase (Behdin et al. 2023) for independent rows; here also where rows are coupled, as in aespa's objectives
for queries and keys. No start gets worse, and there is nothing to tune.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autocompress.compression.rounding.grids import Grid
from autocompress.compression.rounding.objective import Objective
from autocompress.compression.rounding.optq import BLOCK

SWEEPS = 10
"""Times that every level is looked at, at most: each sweep gains less than the one before."""


def descend(weight: Tensor, levels: Tensor, grid: Grid, objective: Objective, *, sweeps: int = SWEEPS) -> Tensor:
    """Return levels (rows x inputs) as int8 whose loss is not above that of ``levels``.

    With S = G (Q - W) H, the loss is a parabola in each weight, and least at Q_rj - S_rj / (G_rr H_jj): the nearest
    level to that is best. Columns go in order of falling curvature; S outside a block of them follows once a block.

    Args:
        weight: W, (rows x inputs).
        levels: Of Q, where to start.
        grid: Levels and scales.
        objective: The loss, in float64, with H positive definite.
        sweeps: At most.
    """
    order = torch.argsort(objective.inputs.diagonal(dim1=1, dim2=2).mean(0), descending=True, stable=True)
    shape = (objective.blocks, -1, weight.shape[1])
    scales = grid.scales(weight.shape[1]).double().expand(weight.shape).reshape(shape)[..., order]
    slope = objective.slope(grid.values(levels).double() - weight).reshape(shape)[..., order]
    found = levels.double().reshape(shape)[..., order]
    hessians = objective.inputs[:, order][..., order].expand(objective.blocks, -1, -1)
    for _ in range(sweeps):
        before = found.clone()
        for start in range(0, len(order), BLOCK):
            part = slice(start, start + BLOCK)
            own = hessians[:, part, part]
            near, pushes = slope[..., part].clone(), torch.empty_like(slope[..., part])
            for i in range(own.shape[1]):
                where = found[..., start + i], scales[..., start + i], near[..., i], own[:, i, i, None]
                pushes[..., i] = _move(*where, grid, objective.outputs)
                near.baddbmm_(pushes[..., i, None], own[:, i, None])
            slope.baddbmm_(pushes, hessians[:, part])
        if torch.equal(found, before):
            break
    return found[..., torch.argsort(order)].reshape(levels.shape).to(torch.int8)


def _move(level: Tensor, scale: Tensor, slope: Tensor, curvature: Tensor, grid: Grid, outputs: Tensor | None) -> Tensor:
    """Change the levels of one column (blocks x rows) in place, and return G times the change of its weights.

    Rows that G couples go one after the other, each with what those before it did to its slope.
    """
    if outputs is None:
        best = torch.round(level - slope / (curvature * scale)).clamp_(grid.low, grid.high)
        change = (best - level) * scale
        level.copy_(best)
        return change
    bend = outputs.diagonal(dim1=1, dim2=2) * curvature * scale
    reach, bent, now = torch.where(bend != 0, 1.0 / bend, 0.0), outputs * curvature[..., None], slope.clone()
    rows, blocks = torch.arange(level.shape[1]), torch.arange(len(level))
    done = torch.zeros(len(level), 1, dtype=torch.int64)
    while True:  # Straight to the next row of each block that changes: most do not.
        best = torch.round(level - now * reach).clamp_(grid.low, grid.high)
        changes = ((best - level) * scale).masked_fill_(rows < done, 0.0)
        moving = changes != 0
        if not moving.any():
            return (now - slope) / curvature
        row = moving.to(torch.int8).argmax(1)
        moves = moving[blocks, row]
        now.addcmul_(bent[blocks, row], changes[blocks, row, None])
        level[blocks, row] = torch.where(moves, best[blocks, row], level[blocks, row])
        done = torch.where(moves, row + 1, len(rows))[:, None]
