from itertools import product

import pytest
import torch

from autocompress.compression.rounding.descent import descend
from autocompress.compression.rounding.grids import Grid
from autocompress.compression.rounding.objective import Objective
from autocompress.shape import WeightGrid
from tests.compression.quadratics import loss, setting


@pytest.mark.parametrize("stored", [None, WeightGrid(64, zero_points=True)], ids=str)
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_descent_ends_where_no_single_level_can_be_improved(bits, coupled, stored):
    weight, start, grid, objective = setting(bits, coupled=coupled, rows=3, inputs=20, stored=stored)
    assert stored is None or grid.zero_points.any()
    levels = descend(weight, grid.levels(start), grid, objective, sweeps=100)
    least = loss(levels, weight, grid, objective)
    assert least <= loss(grid.levels(start), weight, grid, objective)
    for row, channel in product(range(6), range(20)):
        for level in range(grid.low, grid.high + 1):
            other = levels.clone()
            other[row, channel] = level
            assert loss(other, weight, grid, objective) >= least * (1 - 1e-9)


@pytest.mark.parametrize("coupled", [False, True])
def test_a_sweep_looks_at_every_weight_once_column_by_column_and_from_the_first_row_down(coupled):
    """By trying all levels of one weight after the other."""
    weight, start, grid, objective = setting(2, coupled=coupled, rows=5, inputs=12)
    expected = grid.levels(start)
    for channel in torch.argsort(objective.inputs[0].diagonal(), descending=True):
        for row in range(len(weight)):
            tried = expected.repeat(4, 1, 1)
            tried[:, row, channel] = torch.arange(grid.low, grid.high + 1)
            expected = min(tried, key=lambda levels: loss(levels, weight, grid, objective))
    assert not expected.equal(grid.levels(start))
    assert descend(weight, grid.levels(start), grid, objective, sweeps=1).equal(expected)


@pytest.mark.parametrize("coupled", [False, True])
def test_more_sweeps_are_never_worse(coupled):
    weight, start, grid, objective = setting(2, coupled=coupled, inputs=200)
    losses = [
        loss(descend(weight, grid.levels(start), grid, objective, sweeps=sweeps), weight, grid, objective)
        for sweeps in range(5)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < losses[0]


def test_few_levels_are_found_as_trying_all_finds_them():
    """Two uncoupled weights whose inputs barely depend on each other: descent has no trap to fall into."""
    inputs = torch.tensor([[[1.0, 0.2], [0.2, 1.0]]], dtype=torch.float64)
    grid, objective = Grid(-2, 1, torch.full((5,), 0.7)), Objective(inputs)
    weight = torch.randn(5, 2)
    every = torch.tensor(list(product(range(-2, 2), repeat=2)), dtype=torch.int8)
    tried = torch.stack([objective.losses(grid.values(pair.expand(5, 2)).double() - weight) for pair in every])
    found = objective.losses(grid.values(descend(weight, grid.levels(weight), grid, objective)).double() - weight)
    torch.testing.assert_close(found, tried.amin(0))
