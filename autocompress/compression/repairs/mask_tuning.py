"""Mask tuning: kept units are scaled so that a layer gives what its teacher's gave (Kwon et al. 2022, section 4.3).

Two things are simpler than in their code: the dense model is the reference, not one under a milder mask, and no
constant column is fitted only to be dropped, so that the error can but fall.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.linalg import lsmr
from torch import Tensor

DAMP = 1.0
LARGEST_SCALE = 10.0
CONVERGED = (0, 1, 2)
"""LSMR's reasons to stop: zero is the solution, the equations hold, or the squares are least."""


def unit_scales(inputs: Tensor, errors: Tensor, weight: Tensor, *, width: int) -> Tensor | None:
    """Return the scale of each unit (units,), float64, or ``None`` where Kwon's rule rejects them.

    LSMR, damped by 1, for the shift x - 1 in min |A (x - 1) - e|: a column of A is what a unit adds to the outputs of
    all tokens. A is as tall as tokens times outputs; LSMR gets a square root of A^T A, (W^T W) * (X^T X), whose
    squares differ by a constant. Rejected is what does not converge, or scales beyond 10.

    Args:
        inputs: X, (tokens x units * width).
        errors: e, (tokens x outputs): what should be given, less what is given.
        weight: W, (outputs x units * width).
        width: Channels of one unit.
    """
    x, w = inputs.double(), weight.detach().double()
    units = x.shape[1] // width
    gram = ((x.T @ x) * (w.T @ w)).reshape(units, width, units, width).sum((1, 3))
    cross = (x * (errors.double() @ w)).sum(0).reshape(units, width).sum(1)
    roots, vectors = torch.linalg.eigh(gram)
    live = roots > roots[-1].clamp(min=torch.finfo(torch.float64).tiny) * 1e-12
    root = (vectors[:, live] * roots[live].sqrt()).T
    right = (vectors[:, live].T @ cross) / roots[live].sqrt()
    shift, reason, *_ = lsmr(root.numpy(), right.numpy(), damp=DAMP, atol=1e-10, btol=1e-10, maxiter=10 * units)
    scales = 1.0 + shift
    if reason not in CONVERGED or np.abs(scales).max() > LARGEST_SCALE:
        return None
    return torch.from_numpy(scales)
