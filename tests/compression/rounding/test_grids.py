import numpy as np
import pytest
import torch

from autocompress.compiler.graph import round_bf16
from autocompress.compression.rounding.grids import grid_of, quantize_rows
from autocompress.models.quantized import expand_groups
from autocompress.shape import WEIGHT_GROUPS, WeightGrid


def test_eight_bit_rounding_is_within_half_a_level():
    weight = torch.randn(16, 48)
    levels, scale = quantize_rows(weight, 8)
    assert levels.dtype == torch.int8
    assert ((levels * scale[:, None] - weight).abs() <= scale[:, None] / 2 + 1e-7).all()


@pytest.mark.parametrize("bits", [4, 3])
def test_levels_use_the_whole_range_and_little_is_lost(bits):
    weight, half = torch.randn(16, 70), 2 ** (bits - 1)
    levels, scale = quantize_rows(weight, bits)
    assert (int(levels.min()), levels.max() <= half - 1, tuple(scale.shape)) == (-half, True, (16, 3))
    error = (expand_groups(levels, scale) - weight).square().mean() / weight.square().mean()
    uniform = (weight.abs().amax() / (half - 1)) ** 2 / 12  # the error of one scale for all, symmetric
    assert error < uniform


@pytest.mark.parametrize("sign", [1, -1])
def test_two_bit_scales_are_nearly_the_best_there_are(sign):
    groups = torch.cat([torch.randn(40, 32), torch.distributions.StudentT(3.0).sample((40, 32)), torch.rand(40, 32)])
    levels, scale = quantize_rows(sign * groups, 2)
    assert (int(levels.min()), int(levels.max()), tuple(scale.shape)) == (-2, 1, (120, 1))
    found = (expand_groups(levels, scale) - sign * groups).square().sum(1).numpy()
    values = sign * groups.numpy().astype(np.float64)
    every = np.abs(values).max() * np.linspace(-1.2, 1.2, 4000)[:, None, None]  # an even number of points: none is zero
    errors = ((np.clip(np.rint(values / every), -2, 1) * every - values) ** 2).sum(-1).min(0)
    assert found.sum() < 1.01 * errors.sum()


def test_four_levels_hold_what_is_made_of_them():
    levels = torch.tensor([[-2, -1, 0, 1] * 8, [1, -2, 1, 0] * 8, [-1, 1, 0, 0] * 8, [1, 0, 0, 0] * 8])
    weight = levels * torch.tensor([[0.3], [-0.7], [2.0], [5.0]])
    found, scale = quantize_rows(weight, 2)
    np.testing.assert_allclose(expand_groups(found, scale).numpy(), weight.numpy(), rtol=1e-6)


def test_sixteen_bits_round_as_the_compiler_rounds():
    weight = torch.cat([torch.randn(4, 50), 1 + torch.arange(50)[None] * 2.0**-9])
    values, scale = quantize_rows(weight, 16)
    assert (values.dtype, scale) == (torch.bfloat16, None)
    np.testing.assert_array_equal(values.float().numpy(), round_bf16(weight.numpy()))


def test_a_row_of_zeros_stays_zero():
    for bits in (8, 4, 3, 2):
        levels, scale = quantize_rows(torch.zeros(2, 32), bits)
        assert int(levels.abs().max()) == 0
        assert torch.isfinite(scale).all()


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("channels", [20, 32, 70])
def test_levels_are_the_nearest_that_the_scales_allow_and_their_values_round_to_themselves(bits, channels):
    weight = torch.randn(6, channels)
    grid = grid_of(weight, bits)
    every = torch.arange(grid.low, grid.high + 1)[:, None, None] * grid.scales(channels).expand(6, channels)
    nearest = (every - weight).abs().amin(0)
    values = grid.values(grid.levels(weight))
    torch.testing.assert_close((values - weight).abs(), nearest)
    assert torch.equal(grid.levels(values), grid.levels(weight))


def test_blocks_of_rows_have_their_own_part_of_the_grid():
    weight = torch.randn(6, 40)
    for bits in (8, 3):
        grid = grid_of(weight, bits)
        parts = [part.levels(rows) for part, rows in zip(grid.chunks(3), weight.chunk(3), strict=True)]
        assert torch.equal(torch.cat(parts), grid.levels(weight))


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_whole_rows_have_one_scale_each_which_fits_as_that_of_a_group_does(bits):
    weight = torch.randn(5, 32)
    rows, groups = grid_of(weight, bits, whole_rows=True), grid_of(weight, bits)
    assert rows.scale.equal(groups.scale[:, 0])
    assert grid_of(torch.randn(5, 70), bits, whole_rows=True).scale.shape == (5,)


def squared_error(weight, grid):
    return (grid.values(grid.levels(weight)) - weight).double().square()


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("group", WEIGHT_GROUPS)
def test_zero_points_fit_no_group_worse_and_lopsided_ones_far_better(bits, group):
    drawn = torch.randn(8, 300, generator=torch.Generator().manual_seed(bits))
    for weight, gain in ((drawn, 1.0), (drawn.sigmoid(), 0.6), (-drawn.sigmoid(), 0.6)):
        plain, free = (grid_of(weight, bits, stored=WeightGrid(group, zeros)) for zeros in (False, True))
        assert (plain.zero_points, free.zero_points.dtype) == (None, torch.int8)
        assert free.zero_points.shape == free.scale.shape == plain.scale.shape == (8, -(-300 // group))
        assert free.zero_points.min() >= free.low and free.zero_points.max() <= free.high
        errors = [
            torch.stack([part.sum(1) for part in squared_error(weight, grid).split(group, 1)]) for grid in (plain, free)
        ]
        assert (errors[1] <= errors[0] * (1 + 1e-5)).all()
        assert errors[1].sum() < gain * errors[0].sum()


@pytest.mark.parametrize("bits", [3, 2])
def test_scales_and_zero_points_are_nearly_the_best_there_are(bits):
    """Of 300 scales up to where both ends of the levels hold the group, with every zero point."""
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(40, 64, generator=generator), torch.randn(40, 64, generator=generator) + 1])
    grid = grid_of(values, bits, stored=WeightGrid(64, zero_points=True))
    widest = (values.amax(1, keepdim=True) - values.amin(1, keepdim=True)).double()
    least = torch.full((80,), torch.inf, dtype=torch.float64)
    for share in np.linspace(0.1, 1.1, 300):
        scale = widest * share / (grid.high - grid.low)
        for zero in range(grid.low, grid.high + 1):
            level = (torch.round(values / scale) + zero).clamp(grid.low, grid.high)
            least = least.minimum((((level - zero) * scale - values) ** 2).sum(1))
    assert squared_error(values, grid).sum() < 1.02 * least.sum()


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_levels_with_a_zero_point_hold_what_is_made_of_them(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    levels = torch.arange(low, high + 1).repeat(64 // 2**bits)[None].expand(4, 64)
    zeros = torch.tensor([[low], [low + 1], [high], [0]])
    weight = (levels - zeros) * torch.tensor([[0.3], [0.7], [2.0], [5.0]])
    grid = grid_of(weight, bits, stored=WeightGrid(64, zero_points=True))
    torch.testing.assert_close(grid.values(grid.levels(weight)), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zeros", [False, True])
def test_padding_of_a_last_group_and_groups_of_zeros_do_no_harm(zeros):
    weight = torch.cat([torch.randn(3, 40) + 2, torch.zeros(3, 64)], 1)
    for group in WEIGHT_GROUPS:
        grid = grid_of(weight, 2, stored=WeightGrid(group, zeros))
        assert torch.isfinite(grid.scale).all()
        assert not grid.values(grid.levels(weight))[:, 64:][:, : 0 if group > 64 else None].any()


def test_eight_bits_in_groups_have_a_level_more_and_lose_less_than_a_scale_a_row():
    weight = torch.randn(6, 300) * torch.logspace(-1, 1, 300)
    rows, groups = grid_of(weight, 8), grid_of(weight, 8, stored=WeightGrid(64))
    assert (groups.low, groups.high, rows.low) == (-128, 127, -127)
    assert int(groups.levels(weight).min()) == -128
    assert squared_error(weight, groups).sum() < squared_error(weight, rows).sum()


def test_blocks_of_rows_have_their_own_zero_points():
    weight = torch.rand(6, 40)
    grid = grid_of(weight, 3, stored=WeightGrid(64, zero_points=True))
    parts = [part.levels(rows) for part, rows in zip(grid.chunks(3), weight.chunk(3), strict=True)]
    assert torch.equal(torch.cat(parts), grid.levels(weight))
