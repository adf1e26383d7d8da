"""A linear map from a student's channels to its teacher's, which is trained along and not delivered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

RIDGE = 1e-3
"""Of the least squares below, in mean squares of the student's channels."""


@torch.no_grad()
def widening(student: Sequence[Tensor], teacher: Sequence[Tensor], *, equal: bool) -> nn.Linear:
    """Return the map to start with: the identity where channels correspond, else the one of least squares.

    TinyBERT and CoFi learn such a map, with a bias; TinyBERT starts from random weights, which a short training pays
    for. Least squares are ours.

    Args:
        student: Rows (rows x channels) of several features.
        teacher: The same rows (rows x the teacher's channels).
        equal: Whether channels correspond, as where the student was cut out of the teacher.
    """
    x, y = torch.cat(list(student)).float(), torch.cat(list(teacher)).float()
    linear = nn.Linear(x.shape[1], y.shape[1]).to(x.device)
    if equal:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred
    gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(x.dtype).tiny))
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    linear.weight.copy_(weight)
    linear.bias.copy_(mean_y - weight @ mean_x)
    return linear
