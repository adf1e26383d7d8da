"""The benchmark of recipes: what it trains, and how it adds up."""

from __future__ import annotations

import pytest

from autocompress.compression.recipes.table import RECIPES
from benchmarks.distillation import BASE, SEEDS, STARTS, TASKS, report, settings
from benchmarks.distillation_rows import WAYS, Setting, Trained


def trained(recipe: str, seed: int, accuracy: float, start="half") -> Trained:
    setting = Setting("trec6", start, recipe, seed)
    return Trained(setting, 1.5, 200, 60.0, accuracy, accuracy, 0.3, 0.1, accuracy)


def test_every_recipe_is_trained_on_every_task_from_every_start_with_every_seed() -> None:
    cells = {(each.task, each.start, each.recipe, each.seed) for each in settings(quick=False)}
    expected = {
        (task, start, recipe, seed) for task in TASKS for start in STARTS for recipe in RECIPES for seed in SEEDS
    }
    assert expected <= cells
    assert {each.recipe for each in settings(quick=False)} == set(WAYS)
    assert len(settings(quick=False)) == len(cells)


def test_one_seed_of_all_cells_comes_before_the_next() -> None:
    seeds = [each.seed for each in settings(quick=False)]
    assert seeds == sorted(seeds)


def test_a_gain_is_the_mean_over_seeds_that_both_were_trained_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        *(trained(BASE, seed, accuracy) for seed, accuracy in enumerate((0.90, 0.92))),
        *(trained("cofi", seed, accuracy) for seed, accuracy in enumerate((0.93, 0.91, 0.10))),
        trained("cofi", 0, 0.5, start="tiny"),
    ]
    rows = {(row["start"], row["recipe"]): row for row in report(found, {"trec6": 0.95})}
    assert rows["half", "cofi"]["gain"] == pytest.approx((1.0, 2.0))  # Of 3 and -1.
    assert rows["half", "cofi"]["seeds"] == 3
    assert rows["tiny", "cofi"]["gain"] is None
    assert rows["half", BASE]["kept"][0] == pytest.approx(100 * 0.91 / 0.95, abs=1e-3)
    assert "cofi" in capsys.readouterr().out


def test_ablations_differ_from_their_recipe_in_what_their_name_says() -> None:
    assert WAYS["tinybert less hidden"].losses == RECIPES["tinybert"].losses - {"hidden"}
    assert WAYS["distilbert less cosine"].losses == RECIPES["distilbert"].losses - {"cosine"}
    first, second = WAYS["distilbert less tokens to guess"].phases
    assert {term.loss for term in first.terms} == {"logits", "cosine"}
    assert second == RECIPES["distilbert"].phases[1]
    assert all(phase.lesson == "task" for phase in WAYS["tinybert, documents as they are"].phases)
    assert not WAYS["ei_bert less integration"].integrates
