from __future__ import annotations

import numpy as np
import pytest

from autocompress.profiling.expectation import SAMPLES_PER_TERM, expect_ms


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Configurations of which one column never changes, and latencies that are a product of powers of the others."""
    rng = np.random.default_rng(seed)
    configurations = np.column_stack([rng.uniform(1, 8, count), rng.uniform(256, 3072, count), np.full(count, 6.0)])
    return configurations, 3.0 * configurations[:, 0] ** 0.8 * configurations[:, 1] ** 0.5


def test_a_product_of_powers_is_met_while_half_of_the_run_is_slow():
    configurations, latency_ms = drawn(200)
    slow = np.where(np.arange(200) < 100, 1.5, 1.0)
    ratios = slow * latency_ms / expect_ms(configurations, slow * latency_ms, np.ones(200, dtype=bool))
    assert np.median(ratios[:100]) / np.median(ratios[100:]) == pytest.approx(1.5, rel=0.02)
    # No slow sample looks as fast as a fast one.
    assert ratios[:100].min() > 1.3 * ratios[100:].max()


def test_a_few_samples_that_are_far_off_do_not_bend_it():
    configurations, latency_ms = drawn(200)
    taken = latency_ms.copy()
    taken[::10] *= 3
    assert expect_ms(configurations, taken, np.ones(200, dtype=bool)) == pytest.approx(latency_ms, rel=1e-3)


def test_samples_that_are_not_clean_are_not_fitted():
    configurations, latency_ms = drawn(100)
    clean = np.arange(100) >= 60
    taken = np.where(clean, latency_ms, 2 * latency_ms)
    assert expect_ms(configurations, taken, clean) == pytest.approx(latency_ms, rel=1e-3)


def test_curvature_is_fitted_where_samples_suffice():
    terms = 1 + 2 + 3
    worst = []
    for count in (SAMPLES_PER_TERM * terms - 1, SAMPLES_PER_TERM * terms):
        configurations, _ = drawn(count)
        latency_ms = np.exp(np.log(configurations[:, 0]) ** 2)
        expected = expect_ms(configurations, latency_ms, np.ones(count, dtype=bool))
        worst.append(np.abs(latency_ms / expected - 1).max())
    assert worst[0] > 0.1 > 1e-3 > worst[1]
