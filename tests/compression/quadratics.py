"""Weights to round, and what their changes cost."""

import torch

from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import compensated


def correlated(rows=400, inputs=70, seed=0):
    """Inputs of which some follow others, as those of a layer do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator)
    return torch.randn(rows, inputs, generator=generator) @ mixing


def setting(bits, *, blocks=2, rows=4, inputs=40, coupled, seed=0, stored=None):
    """Return a weight, where OPTQ leaves it, its grid, and its damped objective."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(blocks * rows, inputs, generator=generator) + (0 if stored is None else 1)
    outputs = second_moment(torch.randn(1, blocks, 3 * rows, rows, generator=generator))
    objective = Objective(second_moment([correlated(inputs=inputs, seed=seed)])[None], outputs if coupled else None)
    grid, steady = grid_of(weight, bits, stored=stored), objective.damped()
    return weight, compensated(weight, steady.inputs[0], grid), grid, steady


def loss(levels, weight, grid, objective):
    return float(objective.loss(grid.values(levels).double() - weight))
