from __future__ import annotations

import numpy as np
import pytest

from autocompress.profiling.change_points import PENALTY, SHORTEST, SMALLEST_NOISE, noise, partition, without_spikes


def test_noise_is_that_about_the_level_and_not_of_the_levels():
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, 0.7, 0.1, 0.4], 500)
    assert noise(levels + 0.02 * rng.standard_normal(2000)) == pytest.approx(0.02, rel=0.1)


def test_no_series_is_without_noise():
    assert noise(np.ones(50)) == noise(np.ones(1)) == SMALLEST_NOISE


def test_spikes_are_cut_and_stretches_stay_even_at_the_edges():
    series = np.zeros(40)
    series[[10, 11, 25]] = 1.0
    series[:SHORTEST] = series[30 : 30 + SHORTEST] = series[-SHORTEST:] = 0.5
    cut = without_spikes(series, 0.01)
    assert cut[[10, 11, 25]] == pytest.approx(0.03)  # Three standard deviations above the neighbours.
    stretch = series == 0.5
    assert cut[stretch] == pytest.approx(0.5)


def test_a_series_shorter_than_a_stretch_is_left_as_it_is():
    assert without_spikes(np.array([0.0, 5.0]), 0.01).tolist() == [0.0, 5.0]


def cost(series: np.ndarray, cuts: tuple[int, ...], spread: float) -> float:
    parts = np.split(series, cuts)
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    return within + len(cuts) * PENALTY * spread**2 * np.log(len(series))


@pytest.mark.parametrize("seed", range(10))
def test_no_partition_into_up_to_three_stretches_is_cheaper(seed):
    rng = np.random.default_rng(seed)
    count, spread = 16, 0.1
    series = spread * rng.standard_normal(count)
    series[5:11] += 0.5
    found = partition(series, spread)
    assert [each for stretch in found for each in stretch] == list(range(count))
    assert min(map(len, found)) >= SHORTEST
    positions = range(SHORTEST, count - SHORTEST + 1)
    others = [(), *((cut,) for cut in positions)]
    others += [(first, second) for first in positions for second in positions if second - first >= SHORTEST]
    cheapest = min(cost(series, cuts, spread) for cuts in others)
    assert cost(series, tuple(stretch.start for stretch in found[1:]), spread) <= cheapest + 1e-9


def test_few_samples_are_one_stretch():
    assert partition(np.array([0.0, 0.0, 9.0, 9.0]), 0.01) == [range(4)]
    assert partition(np.array([]), 0.01) == []
