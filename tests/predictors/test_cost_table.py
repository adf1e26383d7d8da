from __future__ import annotations

import numpy as np

from autocompress.cost import FIGURES, LIMITS, Cost, Estimate
from autocompress.predictors.cost_table import CostTable


def cost(factor: float, *, calibrated: bool, names=LIMITS) -> Cost:
    estimates = {name: Estimate(factor * 10, factor * 9, factor * 12) for name in names}
    return Cost(**estimates, calibrated=calibrated, source="a predictor")


def test_a_table_of_costs_gives_them_back():
    costs = [cost(1.0, calibrated=True), cost(2.0, calibrated=True), cost(3.0, calibrated=True)]
    table = CostTable.of(costs)
    assert list(table) == costs
    assert list(table[1:]) == costs[1:]
    assert table.known.all()


def test_a_budget_is_held_against_upper_ends_where_calibrated_and_against_values_where_not():
    for calibrated, factor in ((True, 12), (False, 10)):
        costs = [cost(1.0, calibrated=calibrated), cost(2.0, calibrated=calibrated)]
        held = CostTable.of(costs).held()
        assert set(held) == set(LIMITS)
        assert all(np.array_equal(held[name], [factor, 2 * factor]) for name in LIMITS)
        assert {name: values[1] for name, values in held.items()} == costs[1].held()


def test_a_table_without_energy_holds_none():
    costs = [cost(factor, calibrated=True, names=FIGURES) for factor in (1.0, 2.0)]
    table = CostTable.of(costs)
    assert list(table) == costs and set(table.held()) == set(costs[0].held()) == set(FIGURES)
