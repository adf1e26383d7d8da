import math

import pytest
import torch
from torch import nn

from autocompress.compression.activations.folding import fold
from autocompress.compression.activations.norm_sites import NormSite
from autocompress.compression.rounding import zfold
from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.levels import levels_of
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import pivots
from autocompress.compression.rounding.zfold import column_factors
from autocompress.shape import WeightGrid
from tests.compression.quadratics import correlated

EQUAL = torch.ones(64, dtype=torch.float64)


def drawn(seed, *, rows=48, channels=64):
    """Weights whose columns differ in size, as those of a decoder do."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, generator=generator) * torch.randn(channels, generator=generator).exp()


def squared(weight, factors, bits, **stored):
    """Return the squared error of each column, rounded to nearest on the grid that the factors leave, float64."""
    grid = grid_of(weight / factors, bits, **stored)
    return (grid.values(grid.levels(weight / factors)).double() * factors - weight).square().sum(0)


def planted(seed, bits, spread):
    """Return factors, and weights that are these, times whole levels, times a scale a row."""
    generator, half = torch.Generator().manual_seed(seed), 1 << (bits - 1)
    levels = torch.randint(-half, half, (64, 64), generator=generator)
    factors = ((2.0 * torch.rand(64, generator=generator) - 1.0) * math.log(spread)).exp()
    return factors, levels * (torch.rand(64, 1, generator=generator) + 0.5) * factors


@pytest.mark.parametrize(("bits", "spread", "whole_rows"), [(2, 1.2, False), (2, 1.2, True), (3, 1.1, True)])
@pytest.mark.parametrize("seed", range(5))
def test_planted_factors_are_found_and_nothing_is_lost(bits, spread, whole_rows, seed):
    factors, weight = planted(seed, bits, spread)
    found = column_factors(weight, EQUAL, bits, whole_rows=whole_rows)
    assert found.unfolded > 1e-4 * weight.square().sum()
    assert found.loss < 1e-10 * weight.square().sum()
    # What all factors of a group have in common, its scales take back.
    ratio = (found.factors / factors).reshape(1 if whole_rows else 2, -1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand(ratio.shape), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("stored", [{}, {"whole_rows": True}, {"stored": WeightGrid(32, zero_points=True)}], ids=str)
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_loss_is_that_of_nearest_levels_and_never_above_that_without_factors(bits, stored):
    falls = []
    for seed in range(4):
        weight, costs = drawn(seed), pivots(Objective(second_moment([correlated(inputs=64)])[None]).damped().inputs[0])
        found = column_factors(weight, costs, bits, **stored)
        assert found.unfolded == pytest.approx(float(squared(weight, torch.ones(64), bits, **stored) @ costs), rel=1e-4)
        assert found.loss == pytest.approx(float(squared(weight, found.factors, bits, **stored) @ costs), rel=1e-4)
        assert found.grid.scale.equal(grid_of(weight / found.factors, bits, **stored).scale)
        assert (found.factors > 0).all() and found.factors.isfinite().all()
        falls.append(found.loss < found.unfolded)
        assert found.loss <= found.unfolded
    assert any(falls)


@pytest.mark.parametrize("shared", [False, True])
def test_a_round_gives_the_factors_of_least_squares(monkeypatch, shared):
    """By hand: regress the columns that share a factor on their rounded selves, each row weighted by what it costs."""
    monkeypatch.setattr(zfold, "ROUNDS", 1)
    weight, owners = drawn(0), torch.arange(64) // 2 if shared else torch.arange(64)
    costs = torch.rand(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    found = column_factors(weight, costs, 3, owners=owners, whole_rows=True)
    assert found.loss < found.unfolded
    grid = grid_of(weight, 3, whole_rows=True)
    rounded, heavy = grid.values(grid.levels(weight)).double(), costs.sqrt()
    for owner, factor in enumerate(found.factors):
        mine = owners == owner
        one, other = ((each[:, mine] * heavy[mine]).reshape(-1, 1) for each in (rounded, weight.double()))
        expected = torch.linalg.lstsq(one, other).solution if one.any() else torch.ones(1, 1)
        assert float(factor) == pytest.approx(float(expected), rel=1e-5)


def test_linears_that_read_the_same_share_factors_and_are_rounded_as_one():
    one, other = drawn(0), 3.0 * drawn(1, rows=20)
    both = column_factors(torch.cat([one, other]), EQUAL, 3)
    assert both.factors.shape == (64,)
    scales = [grid_of(weight / both.factors, 3).scale for weight in (one, other)]
    assert both.grid.scale.equal(torch.cat(scales))


def test_columns_of_zeros_keep_a_factor_of_one_and_change_nothing():
    weight = drawn(0)
    weight[:, [3, 40]] = 0.0
    found = column_factors(weight, EQUAL, 3, whole_rows=True)
    assert found.factors[[3, 40]].tolist() == [1.0, 1.0]
    kept = [column for column in range(64) if column not in (3, 40)]
    alone = column_factors(weight[:, kept], EQUAL[kept], 3, whole_rows=True)
    torch.testing.assert_close(found.factors[kept], alone.factors)


def test_weights_of_zeros_have_no_factors():
    found = column_factors(torch.zeros(4, 64), EQUAL, 3)
    assert (found.loss, found.factors.tolist()) == (0.0, [1.0] * 64)


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("seed", range(3))
def test_folded_into_a_norm_they_leave_less_for_optq_to_lose(bits, seed):
    norm, linear = nn.RMSNorm(64), nn.Linear(64, 48)
    x, linear.weight.data = correlated(inputs=64, seed=seed), drawn(seed)
    errors = []
    with torch.no_grad():
        expected = linear(norm(x))
        for folded in (False, True):
            if folded:
                hessian = Objective(second_moment([norm(x)])[None]).damped().inputs[0]
                found = column_factors(linear.weight, pivots(hessian), bits, whole_rows=True)
                fold(NormSite("norm", norm, (linear,), ()), 1.0 / found.factors)
                torch.testing.assert_close(linear(norm(x)), expected)
            grid = grid_of(linear.weight, bits, whole_rows=True)
            levels = levels_of(linear.weight, grid, Objective(second_moment([norm(x)])[None]), "optq")
            change = (grid.values(levels) - linear.weight) @ norm(x).T
            errors.append(float(change.square().sum()))
    assert errors[1] < 0.8 * errors[0]
