import pytest
import torch

from autocompress.compression.rounding import adaround as module
from autocompress.compression.rounding.adaround import adaround
from autocompress.shape import WeightGrid
from tests.compression.quadratics import loss, setting


@pytest.mark.parametrize("stored", [None, WeightGrid(64, zero_points=True)], ids=str)
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_learned_levels_beat_their_start_which_beats_rounding_to_nearest(bits, coupled, stored):
    weight, start, grid, objective = setting(bits, coupled=coupled, stored=stored)
    ways = adaround(weight, start, grid, objective), grid.levels(start), grid.levels(weight)
    learned, first, nearest = (loss(levels, weight, grid, objective) for levels in ways)
    assert learned < 0.97 * first < first < nearest


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("stored", [None, WeightGrid(64, zero_points=True)], ids=str)
def test_learned_levels_are_the_two_beside_the_start(bits, stored):
    weight, start, grid, objective = setting(bits, coupled=False, stored=stored)
    ratio = start / grid.scales(40) + grid.zeros(40)
    assert stored is None or grid.zeros(40).any()
    floor, ceiling = (part.clamp(grid.low, grid.high) for part in (ratio.floor(), ratio.ceil()))
    levels = adaround(weight, start, grid, objective)
    assert ((levels == floor) | (levels == ceiling)).all()
    assert ((levels != grid.levels(start)) & (floor != ceiling)).any()


@pytest.mark.parametrize("regulariser", [0.0, 1e6])
def test_a_row_that_learning_makes_worse_stays_as_it_was(monkeypatch, regulariser):
    monkeypatch.setattr(module, "REGULARISER", regulariser)
    weight, start, grid, objective = setting(3, coupled=False)
    before, after = (
        objective.losses(grid.values(levels).double() - weight)
        for levels in (grid.levels(start), adaround(weight, start, grid, objective, iterations=50))
    )
    assert (after <= before).all()


def test_what_the_grid_holds_stays_as_it_is():
    _, _, grid, objective = setting(4, coupled=True)
    held = grid.values(torch.randint(-8, 8, (8, 40)))
    assert torch.equal(adaround(held, held.double(), grid, objective), grid.levels(held))


def test_learning_is_the_same_twice():
    weight, start, grid, objective = setting(2, coupled=True)
    first, second = (adaround(weight, start, grid, objective, iterations=100) for _ in range(2))
    assert torch.equal(first, second)
