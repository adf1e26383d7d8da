import pytest
import torch

from autocompress.compression.activations.affine import Affine
from autocompress.compression.activations.mosf import SHARED, mosf, shared_mean, shared_median


def test_no_other_value_has_a_smaller_mean_absolute_deviation():
    for count in (15, 16):
        scales = torch.rand(count) ** 3
        deviation = (scales - mosf(scales)).abs().mean()
        others = torch.linspace(0, 1, 1001)
        assert (deviation <= (scales[:, None] - others).abs().mean(0) + 1e-6).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.45])
@pytest.mark.parametrize("seed", range(5))
def test_under_half_of_the_channels_made_large_move_it_by_less_than_the_interquartile_range(share, seed):
    generator = torch.Generator().manual_seed(seed)
    scales = 1.0 + torch.rand(400, generator=generator)
    outliers = torch.randperm(400, generator=generator)[: round(share * 400)]
    spread = float(scales.quantile(0.75) - scales.quantile(0.25))
    moved = scales.clone()
    moved[outliers] *= 100
    assert abs(float(mosf(moved) - mosf(scales))) < spread
    # The mean of 1 to 2 becomes at least 1 + 99 * share.
    assert float(moved.mean() - scales.mean()) > spread + 98 * share - 1


def test_it_stays_among_the_channels_that_are_not_off_however_far_the_others_are():
    scales = torch.rand(101)
    moved = scales.clone()
    moved[:50] = 1e9
    assert scales[50:].min() <= mosf(moved) <= scales[50:].max()


def test_the_two_shared_quantizers_are_median_with_a_whole_zero_point_and_mean_with_a_fraction():
    channels = Affine(4, torch.tensor([1.0, 2.0, 9.0, 4.0]), torch.tensor([2.0, 5.0, 8.0, 20.0]))
    median, mean = shared_median(channels), shared_mean(channels)
    # Medians: between 2 and 4, and between 5 and 8; 6.5 goes to the even integer.
    assert (median.scale.tolist(), median.zero.tolist(), median.bits) == ([3.0], [6.0], 4)
    assert (mean.scale.tolist(), mean.zero.tolist(), mean.bits) == ([4.0], [8.75], 4)
    assert set(SHARED.values()) == {shared_median, shared_mean}
