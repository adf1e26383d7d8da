import numpy as np
import pytest
import torch

from autocompress.compiler.graph import round_bf16
from autocompress.compression.rounding.grids import grid_of, quantize_rows
from autocompress.models.quantized import expand_groups


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
