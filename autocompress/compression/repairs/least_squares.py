"""The best weights that a narrower linear can have, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 4096
"""Tokens of one product in f32; sums over chunks are float64."""
LEAST_DAMPING = 1e-9
"""So that inputs which depend on each other leave something to invert."""


def least_squares(
    inputs: Tensor, errors: Tensor, *, damping: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the change of a weight (outputs x inputs) and of its bias (outputs,) that makes up for errors best.

    Minimises sum_t w_t |D x_t + c - e_t|^2 + damping * m * |D|^2 over D and c, m the mean of the diagonal of
    sum_t w_t x_t x_t^T; the bias is not damped. Where e is what a dense linear gives more than its kept columns, this
    is what removal with compensation (``obs.remove``) ends in.

    Args:
        inputs: x, (tokens x inputs).
        errors: e, (tokens x outputs): what should be given, less what is given.
        damping: At least 0.
        weights: w, (tokens,); ``None`` is 1 for all.
    """
    count = inputs.shape[1]
    gram = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    cross = torch.zeros(count + 1, errors.shape[1], dtype=torch.float64)
    for start in range(0, len(inputs), CHUNK):
        rows = slice(start, start + CHUNK)
        x = functional.pad(inputs[rows], (0, 1), value=1.0)
        weighted = x if weights is None else x * weights[rows, None]
        gram.add_(weighted.T @ x)
        cross.add_(weighted.T @ errors[rows])
    scale = float(gram.diagonal()[:count].mean()) or 1.0
    ridge = torch.full((count + 1,), max(damping, LEAST_DAMPING) * scale, dtype=torch.float64)
    ridge[count] = 0.0
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + torch.diag(ridge)))
    return change[:count].T.to(inputs.dtype), change[count].to(inputs.dtype)
