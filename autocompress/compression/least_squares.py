"""The best weights that a narrower linear can have, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHUNK = 4096
"""Tokens of one product in f32; sums over chunks are float64."""


def least_squares(
    inputs: Tensor, targets: Tensor, linear: nn.Linear, *, damping: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of least squared error, damped towards those that ``linear`` has.

    Minimises sum_t w_t |(W + D) x_t + b + c - y_t|^2 + damping * m * |D|^2 over D and c, m the mean of the diagonal of
    sum_t w_t x_t x_t^T; the bias is not damped. With the dense layer's outputs as targets this is what removal with
    compensation (``obs.remove``) ends in; with others it also makes up for what changed in the layers before.

    Args:
        inputs: x, (tokens x inputs).
        targets: y, (tokens x outputs).
        linear: Holds W and b.
        damping: At least 0.
        weights: w, (tokens,); ``None`` is 1 for all.
    """
    count = inputs.shape[1]
    gram = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    cross = torch.zeros(count + 1, targets.shape[1], dtype=torch.float64)
    for start in range(0, len(inputs), CHUNK):
        rows = slice(start, start + CHUNK)
        x = nn.functional.pad(inputs[rows], (0, 1), value=1.0)
        error = targets[rows] - nn.functional.linear(inputs[rows], linear.weight.detach(), linear.bias.detach())
        weighted = x if weights is None else x * weights[rows, None]
        gram.add_(weighted.T @ x)
        cross.add_(weighted.T @ error)
    scale = float(gram.diagonal()[:count].mean()) or 1.0
    ridge = torch.full((count + 1,), max(damping, 1e-9) * scale, dtype=torch.float64)
    ridge[count] = 0.0
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(gram + torch.diag(ridge)))
    weight = (linear.weight.detach() + change[:count].T).to(linear.weight.dtype)
    return weight, (linear.bias.detach() + change[count]).to(linear.bias.dtype)
