import pytest
import torch

from autocompress.compression.ranking.obs import damped
from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import compensated, pivots
from autocompress.shape import WeightGrid
from tests.compression.quadratics import correlated


def textbook(weight, hessian, grid):
    """OPTQ as it is derived: solve for the rest of the weights after each column, the most curved column first."""
    order = sorted(range(len(hessian)), key=lambda i: -float(hessian[i, i]))
    values, scales = weight.double().clone(), grid.scales(weight.shape[1]).double().expand(weight.shape)
    as_rounded, zeros = torch.zeros_like(values), grid.zeros(weight.shape[1]).double().expand(weight.shape)
    for done, i in enumerate(order):
        as_rounded[:, i] = values[:, i]
        level = (torch.round(values[:, i] / scales[:, i]) + zeros[:, i]).clamp(grid.low, grid.high)
        rounded = (level - zeros[:, i]) * scales[:, i]
        rest = order[done + 1 :]
        if rest:
            error = (rounded - values[:, i])[:, None]
            values[:, rest] -= error * torch.linalg.solve(hessian[rest][:, rest], hessian[rest, i])
    return as_rounded


@pytest.mark.parametrize("stored", [None, WeightGrid(64, zero_points=True)], ids=str)
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_what_is_left_is_the_least_squares_answer_to_each_error(bits, stored):
    weight, hessian = torch.randn(5, 40), damped(second_moment([correlated(inputs=40)]))
    grid = grid_of(weight + 1, bits, stored=stored and stored.at(bits, "token"))
    torch.testing.assert_close(compensated(weight, hessian, grid), textbook(weight, hessian, grid))


@pytest.mark.parametrize("block", [1, 7, 32, 70, 128])
def test_blocks_of_columns_change_nothing(block):
    weight, hessian = torch.randn(5, 70), damped(second_moment([correlated()]))
    grid = grid_of(weight, 3)
    whole = compensated(weight, hessian, grid, block=70)
    torch.testing.assert_close(compensated(weight, hessian, grid, block=block), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_inputs_that_do_not_depend_on_each_other_are_rounded_to_nearest(bits):
    weight = torch.randn(6, 70)
    grid = grid_of(weight, bits)
    found = compensated(weight, torch.eye(70, dtype=torch.float64), grid)
    assert torch.equal(found, weight.double())
    assert torch.equal(grid.levels(found), grid.levels(weight))


@pytest.mark.parametrize("bits", [4, 2])
def test_the_loss_is_each_columns_own_error_times_its_pivot(bits):
    weight, hessian = torch.randn(6, 40), damped(second_moment([correlated(inputs=40)]))
    grid = grid_of(weight, bits)
    stood = compensated(weight, hessian, grid)
    rounded = grid.values(grid.levels(stood)).double()
    loss = Objective(hessian[None]).loss(rounded - weight)
    torch.testing.assert_close((stood - rounded).square().sum(0) @ pivots(hessian), loss)


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_on_calibration_data_is_well_below_that_of_rounding_to_nearest(bits, seed):
    x, weight = correlated(seed=seed), torch.randn(8, 70, generator=torch.Generator().manual_seed(seed))
    objective, grid = Objective(second_moment([x])[None]), grid_of(weight, bits)
    error = [
        float(objective.loss((grid.values(levels) - weight).double()))
        for levels in (grid.levels(compensated(weight, objective.damped().inputs[0], grid)), grid.levels(weight))
    ]
    assert error[0] < 0.9 * error[1]
