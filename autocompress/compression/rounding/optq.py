"""OPTQ: weights are rounded column by column, and those that are left make up for each error.

Source: OPTQ, also called GPTQ (Frantar et al. 2023, algorithm 1), with scales fixed beforehand (static groups) and
columns in order of falling curvature (act-order).
"""

from __future__ import annotations

import torch
from torch import Tensor

from autocompress.compression.rounding.grids import Grid

BLOCK = 128
"""Columns after which the errors reach all columns behind them; the result does not depend on it."""


def compensated(weight: Tensor, hessian: Tensor, grid: Grid, *, block: int = BLOCK) -> Tensor:
    """Return weights (rows x inputs, float64) whose nearest levels are OPTQ's.

    Each column is left as it stood when it was rounded: with what earlier columns handed on, and not rounded itself.
    AdaRound starts from that; ``grid.levels`` of it is OPTQ's answer.

    With U the upper Cholesky factor of H^-1, a column's error (w - q) / U_ii times row i of U is taken from the columns
    behind it, which is the least-squares answer of those to it.

    Args:
        weight: (rows x inputs).
        hessian: H = 2 E[x x^T] (inputs x inputs), float64, positive definite, see ``obs.damped``.
        grid: Of ``weight``.
        block: See ``BLOCK``.
    """
    order, factor = _factored(hessian)
    values = weight.double()[:, order]
    channels = weight.shape[1]
    scales, zeros = (
        each.double().expand(weight.shape)[:, order] for each in (grid.scales(channels), grid.zeros(channels))
    )
    for start in range(0, len(order), block):
        stop = min(start + block, len(order))
        errors = torch.empty_like(values[:, start:stop])
        for i in range(start, stop):
            column, scale, zero = values[:, i], scales[:, i], zeros[:, i]
            rounded = ((torch.round(column / scale) + zero).clamp(grid.low, grid.high) - zero) * scale
            errors[:, i - start] = (column - rounded) / factor[i, i]
            values[:, i + 1 : stop].addr_(errors[:, i - start], factor[i, i + 1 : stop], alpha=-1.0)
        values[:, stop:].addmm_(errors, factor[start:stop, stop:], alpha=-1.0)
    return values[:, torch.argsort(order)]


def pivots(hessian: Tensor) -> Tensor:
    """Return what each column's squared error costs once the columns behind it have made up for it, (inputs,).

    With the errors e that ``compensated`` rounds away, tr(dW H dW^T) is the sum over columns of |e_j|^2 / U_jj^2.

    Args:
        hessian: As in ``compensated``.
    """
    order, factor = _factored(hessian)
    return factor.diagonal().pow(-2)[torch.argsort(order)]


def _factored(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order of columns and, in it, the upper Cholesky factor of H^-1."""
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)
