"""AdaRound: which weights are rounded up and which down is learned, so that a quadratic loss becomes least.

Source: AdaRound (Nagel et al. 2020, equations 21 to 24), started from OPTQ's compensated weights as in aespa (Kim et
al. 2024). How the regulariser compares with the loss is ours: the paper's sums depend on the size of activations.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from autocompress.compression.rounding.grids import Grid
from autocompress.compression.rounding.objective import Objective

ITERATIONS, LEARNING_RATE = 1000, 0.015
WARM_UP = 0.2
"""Share of the iterations without regulariser."""
SHARPEST, BLUNTEST = 20.0, 2.0
"""The exponent of the regulariser at the end of the warm-up, and at the end."""
STRETCH, SHIFT = 1.2, -0.1
"""The sigmoid is stretched to -0.1..1.1 and cut to 0..1, so that it reaches both."""
REGULARISER = 1000.0
"""Of the mean of 1 - |2h - 1|^beta, in losses of the rounded start. From 100 to 1000 it matters little; at 30 and less,
weights stay undecided until they are rounded, which can end worse than the start.
"""


def adaround(
    weight: Tensor, start: Tensor, grid: Grid, objective: Objective, *, iterations: int = ITERATIONS
) -> Tensor:
    """Return learned levels (rows x inputs) as int8, each the one below or above what ``start`` asks for.

    Minimises loss(Q - W) / loss(Q_0 - W) + lambda * mean(1 - |2h - 1|^beta) by Adam over B. Q = s * (clip(floor(W' / s)
    + z + h) - z), h = clip(1.2 sigmoid(B) - 0.1, 0, 1) starts as the fraction of W' / s, and Q_0 is W' rounded to
    nearest. Rows (blocks, where G couples them) that end worse than they started keep Q_0, which the paper does not do.
    Learning is f32: two runs give the same levels where the number of threads is the same.

    Args:
        weight: W, (rows x inputs).
        start: W', the same size.
        grid: Levels, scales s and zero points z.
        objective: The loss; lambda is ``REGULARISER`` times its ``regulariser``.
        iterations: Of Adam.
    """
    first, ratio = grid.levels(start), start / grid.scales(weight.shape[1]) + grid.zeros(weight.shape[1])
    below = ratio.floor()
    before = objective.losses(grid.values(first).double() - weight)
    if not before.sum() > 0:
        return first
    up = _learn(
        weight.float(),
        below.float(),
        (ratio - below).float(),
        grid,
        replace(objective.float(), inputs=objective.inputs.float() / before.sum().float()),
        iterations,
    )
    levels = (below + up).clamp(grid.low, grid.high).to(torch.int8)
    better = objective.losses(grid.values(levels).double() - weight) < before
    return torch.where(better.repeat_interleave(len(weight) // len(better))[:, None], levels, first)


def _learn(
    weight: Tensor, below: Tensor, fraction: Tensor, grid: Grid, objective: Objective, iterations: int
) -> Tensor:
    """Return which weights go up (rows x inputs), bool.

    The gradient is written out: the slope of a quadratic loss is the product that its value needs anyway.
    """
    scales, zeros = grid.scales(weight.shape[1]), grid.zeros(weight.shape[1])
    strength = REGULARISER * objective.regulariser / weight.numel()
    logits = torch.logit((fraction - SHIFT) / STRETCH)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE, fused=True)
    warm_up = int(WARM_UP * iterations)
    for step in range(iterations):
        sigmoid = torch.sigmoid(logits)
        up = (STRETCH * sigmoid + SHIFT).clamp_(0.0, 1.0)
        level = below + up
        inside = level.clamp(grid.low, grid.high)
        gradient = objective.slope((inside - zeros) * scales - weight).mul_(2.0 * scales).mul_(inside == level)
        if step >= warm_up:
            beta = SHARPEST + (BLUNTEST - SHARPEST) * (step - warm_up) / (iterations - warm_up)
            far = 2.0 * up - 1.0
            gradient -= far.sign().mul_(2.0 * beta * strength) * far.abs_().pow_(beta - 1.0)
        logits.grad = gradient.mul_(STRETCH * sigmoid * (1.0 - sigmoid)).mul_((up > 0.0) & (up < 1.0))
        optimizer.step()
    return logits >= 0.0
