"""Optimal brain surgeon for whole units: remove the one that costs least, let the remaining weights make up for it.

Source: ZipLM (Kurtic et al. 2023, section 3.1) for heads and neurons as the structures; the curvature of the outputs
beside that of the inputs is Kronecker-factored, as in EigenDamage (Wang et al. 2019) and LLM Surgeon (van der Ouderaa
et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.captures import output_linears, unit_inputs
from autocompress.compression.ranking.curvature import curvatures
from autocompress.compression.ranking.importance import LayerRanking, by_removal, paired
from autocompress.training.batches import TrainingBatch

DAMPING = 0.01
"""Of the mean of the diagonal, added to the diagonal: ZipLM's."""
COMPACT = 64
"""Removals after which the inverse is cut to the channels that are left."""


@dataclass(frozen=True)
class Removal:
    """What greedy removal leaves.

    Attributes:
        weight: (outputs x inputs), float64, the removed columns zero, the others compensated.
        removed: Units in the order in which they went.
        costs: Growth of tr(E H E^T) with each, E the change of the weight.
    """

    weight: Tensor
    removed: tuple[int, ...]
    costs: tuple[float, ...]


def damped(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """Return H (float64) with dead inputs at 1 and ``damping`` times its mean diagonal added, so that it inverts."""
    diagonal = hessian.diagonal()
    steady = hessian.double() + torch.diag((diagonal == 0).double())
    return steady + damping * steady.diagonal().mean() * torch.eye(len(steady), dtype=torch.float64)


def remove(weight: Tensor, hessian: Tensor, *, width: int = 1, count: int | None = None) -> Removal:
    """Remove ``count`` units (default: all), one at a time, each time the cheapest.

    Unit M costs tr(W_M ([H^-1]_MM)^-1 W_M^T). As it goes, W -= W_M ([H^-1]_MM)^-1 [H^-1]_M: and
    H^-1 -= [H^-1]_:M ([H^-1]_MM)^-1 [H^-1]_M:, which are exact: what is left is the least-squares fit of the kept
    columns, (W H)_R (H_RR)^-1.

    Args:
        weight: (outputs x inputs).
        hessian: (inputs x inputs), positive definite, see ``damped``.
        width: Input channels of one unit.
        count: Units to remove.
    """
    values, inverse = weight.double().clone(), torch.cholesky_inverse(torch.linalg.cholesky(hessian.double()))
    units = torch.arange(weight.shape[1] // width)
    left = torch.ones(len(units), dtype=torch.bool)
    removed: list[int] = []
    costs: list[float] = []
    for step in range(len(units) if count is None else count):
        if step and (width > 1 or step % COMPACT == 0):
            channels = left.repeat_interleave(width)
            values, inverse = values[:, channels], inverse[channels][:, channels]
            units, left = units[left], left[left]
        price = torch.where(left, _prices(values, inverse, width), torch.inf)
        cheapest = int(price.argmin())
        block = slice(cheapest * width, (cheapest + 1) * width)
        gain = torch.linalg.solve(inverse[block, block], inverse[block])
        values -= values[:, block] @ gain
        inverse.addmm_(inverse[:, block].clone(), gain, alpha=-1.0)
        left[cheapest] = False
        removed.append(int(units[cheapest]))
        costs.append(float(price[cheapest]))
    whole = torch.zeros_like(weight, dtype=torch.float64)
    channels = (units[left, None] * width + torch.arange(width)).reshape(-1)
    whole[:, channels] = values[:, left.repeat_interleave(width)]
    return Removal(whole, tuple(removed), tuple(costs))


def _prices(weight: Tensor, inverse: Tensor, width: int) -> Tensor:
    """Return the cost of each unit; one that is gone, and not cut away yet, has any."""
    if width == 1:
        return weight.square().sum(0) / inverse.diagonal().clamp(min=torch.finfo(torch.float64).tiny)
    units = weight.shape[1] // width
    blocks = inverse.reshape(units, width, units, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    columns = weight.reshape(-1, units, width).permute(1, 2, 0)
    solved: Tensor = torch.linalg.solve(blocks, columns)
    return (columns * solved).sum((1, 2))


def obs(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by greedy removal with H = 2 X X^T / n over real tokens: the error of the unit's own layer (ZipLM).

    Labels are not read.
    """
    linears = output_linears(model)
    grams = [torch.zeros(linear.module.in_features, linear.module.in_features).double() for linear in linears]
    tokens = 0
    for batch, inputs in unit_inputs(model, batches):
        real = batch.attention_mask.bool()
        tokens += int(real.sum())
        for gram, values in zip(grams, inputs, strict=True):
            gram.add_(values[real].T @ values[real])
    rankings = []
    for linear, gram in zip(linears, grams, strict=True):
        found = remove(linear.module.weight.detach(), damped(2.0 * gram / tokens), width=linear.width)
        rankings.append(by_removal(found.removed, found.costs))
    return paired(rankings)


def kron_obs(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank as ``obs``, but errors count by how far they move the logits: tr(G E H E^T).

    See ``curvature``. Costs of all layers are in one unit, the squared change of the logits of a document, so that
    layers compare. Labels are not read.
    """
    rankings = []
    for linear, found in zip(output_linears(model), curvatures(model, batches), strict=True):
        scaled = torch.linalg.cholesky(damped(found.outputs, 1e-6)).T @ linear.module.weight.detach().double()
        removal = remove(scaled, damped(found.inputs), width=linear.width)
        rankings.append(by_removal(removal.removed, removal.costs))
    return paired(rankings)
