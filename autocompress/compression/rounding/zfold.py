"""Z-Fold: beside the scales of rows, a factor for each input channel, which goes into what stands before a linear.

Source: Z-Fold (Jeon et al., EMNLP 2023), as aespa (Kim et al., NeurIPS 2024) and its authors' code have it: linears
that read the same input share the factors; these have a closed form while levels stand, and grid and factors take
turns.

Two things are ours. The paper has one asymmetric scale a row, its clip ratio searched for tr(dW H dW^T); here the grid
is ``grid_of``'s: symmetric, of least squared error, a scale a row or group. And the rounds are judged by the part of
tr(dW H dW^T) that no later column makes up for (``optq.pivots``), not by all of it, and do not end at the first that is
worse: as our grids do not look at H, all of it goes up and down by what errors of different columns have in common,
which OPTQ and all that starts from it take away. Decision 0012 compares the two. Factors that make all of it least,
(Q^T Q o H) zeta = diag(Q^T W H), make up for errors rather than fit steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autocompress.compression.rounding.grids import Grid, GridBits, grid_of
from autocompress.shape import WeightGrid

ROUNDS = 30
PATIENCE, GAIN = 3, 1e-3
"""So many rounds in a row that do not lower the least loss by this share end it: single ones may be worse."""


@dataclass(frozen=True)
class ColumnFactors:
    """Factors of input channels, and the grid that they leave.

    Attributes:
        factors: zeta, (channels,), positive: the weights that are rounded are W / zeta, what they read is X * zeta.
        grid: Of W / zeta.
        loss: sum_j costs_j |W_j - zeta_j Q_j|^2 with Q the nearest values on ``grid``.
        unfolded: The same where all factors are 1.
    """

    factors: Tensor
    grid: Grid
    loss: float
    unfolded: float


def column_factors(
    weight: Tensor,
    costs: Tensor,
    bits: GridBits,
    *,
    owners: Tensor | None = None,
    stored: WeightGrid | None = None,
    whole_rows: bool = False,
) -> ColumnFactors:
    """Return the factors and the grid of the least loss among those of at most ``ROUNDS`` rounds, and of no factors.

    A round: with Q the nearest values of W / zeta on its grid, sum_j costs_j |W_j - zeta_j Q_j|^2 is least at zeta_j =
    <W_j, Q_j> / <Q_j, Q_j>, in which costs play no part; where columns share a factor, both products are summed over
    these, times the costs. Then comes the grid of W by the new zeta. Columns whose Q is 0 get 1.

    Args:
        weight: W of all linears that read the same, one below the other (rows x inputs).
        costs: Of a squared error in each column (inputs,): ``optq.pivots`` of H, or ones where no inputs are known.
        bits: Of a level.
        owners: Which factor each column has (inputs,), int64, from 0; ``None``: each its own.
        stored: See ``grid_of``.
        whole_rows: See ``grid_of``.
    """
    owners = torch.arange(weight.shape[1]) if owners is None else owners
    factors = weight.new_ones(int(owners.max()) + 1)
    best, waited, mark = None, 0, torch.inf
    for _ in range(1 + ROUNDS):
        spread = factors[owners]
        grid = grid_of(weight / spread, bits, stored=stored, whole_rows=whole_rows)
        values = grid.values(grid.levels(weight / spread))
        loss = float(((values * spread - weight).square().sum(0) * costs).sum())
        if best is None or loss < best.loss:
            best = ColumnFactors(factors, grid, loss, loss if best is None else best.unfolded)
        waited, mark = (0, loss) if loss < mark * (1.0 - GAIN) else (waited + 1, mark)
        if waited == PATIENCE:
            break
        factors = _closed_form(weight, values, costs, owners, len(factors))
    assert best is not None
    return best


def _closed_form(weight: Tensor, values: Tensor, costs: Tensor, owners: Tensor, count: int) -> Tensor:
    along, length = (
        costs.new_zeros(count).index_add_(0, owners, (each * values).sum(0) * costs) for each in (weight, values)
    )
    factors = (along / length).to(weight.dtype)
    return torch.where(factors.isfinite() & (factors > 0), factors, 1.0)
