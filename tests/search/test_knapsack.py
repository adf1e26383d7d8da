from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.search.knapsack import solve


def by_trying(losses, costs, limits):
    """Every choice inside the limits, with its loss."""
    return {
        picked: sum(loss[at] for loss, at in zip(losses, picked, strict=True))
        for picked in product(*(range(len(loss)) for loss in losses))
        if (sum(cost[at] for cost, at in zip(costs, picked, strict=True)) <= limits).all()
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_the_solution_is_the_best_of_all_choices(seed, groups, options):
    rng = np.random.default_rng(seed)
    losses = [rng.normal(size=options) for _ in range(groups)]
    costs = [rng.random((options, 2)) * [1.0, 1e7] for _ in range(groups)]
    limits = rng.uniform(0.2, 0.7, 2) * groups * [1.0, 1e7]
    inside = by_trying(losses, costs, limits)
    picked = solve(losses, costs, limits)
    if not inside:
        assert picked is None
    else:
        assert picked in inside and inside[picked] == pytest.approx(min(inside.values()), abs=1e-6)


def test_a_limit_that_does_not_bind_limits_nothing():
    losses, costs = [np.array([1.0, 0.0])] * 3, [np.array([[1.0], [100.0]])] * 3
    assert solve(losses, costs, np.array([np.inf])) == (1, 1, 1)
    assert solve(losses, [cost[:, :0] for cost in costs], np.array([])) == (1, 1, 1)
    assert solve(losses, costs, np.array([102.5])) in {(0, 0, 1), (0, 1, 0), (1, 0, 0)}


def test_costs_below_zero_free_what_limits_below_zero_ask_for():
    """Costs are what an option changes: a smaller one changes them by less than nothing."""
    losses, costs = [np.array([0.0, 1.0]), np.array([0.0, 3.0])], [np.array([[0.0], [-2.0]])] * 2
    assert solve(losses, costs, np.array([-2.0])) == (1, 0)
    assert solve(losses, costs, np.array([-3.0])) == (1, 1)
    assert solve(losses, costs, np.array([-5.0])) is None
