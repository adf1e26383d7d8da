import pytest

from autocompress.compression.recipes.recipe import Phase, Recipe, Term, teacher_layer
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.terms import TERMS

THREE = Recipe(
    tuple(
        Phase((Term(loss), Term("labels")), share)
        for loss, share in (("hidden", 0.5), ("logits", 0.3), ("labels", 0.2))
    )
)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_shares_out_all_of_its_steps_among_losses_that_exist(name):
    recipe = RECIPES[name]
    assert sum(phase.share for phase in recipe.phases) == pytest.approx(1.0)
    assert recipe.losses <= set(TERMS)
    for total in (1, 7, 100):
        assert sum(recipe.steps(total)) == total


def test_steps_follow_the_shares():
    assert THREE.steps(100) == (50, 30, 20)
    assert THREE.steps(3) == (2, 0, 1)


def test_a_loss_that_is_left_out_takes_its_phase_along_if_nothing_else_is_in_it():
    left = THREE.without("labels")
    assert [[term.loss for term in phase.terms] for phase in left.phases] == [["hidden"], ["logits"]]
    assert [phase.share for phase in left.phases] == [pytest.approx(0.625), pytest.approx(0.375)]


def test_only_answers_can_be_compared_where_tokens_are_dropped():
    assert THREE.compares_tokens
    assert not THREE.without("hidden").compares_tokens


def test_uniform_layers_are_every_nth_up_to_the_last():
    assert [teacher_layer(m, 4, 12) for m in range(1, 5)] == [3, 6, 9, 12]
    assert [teacher_layer(m, 4, 6) for m in range(1, 5)] == [2, 3, 5, 6]
    assert [teacher_layer(m, 4, 12, "top") for m in range(1, 5)] == [9, 10, 11, 12]
    assert [teacher_layer(m, 4, 12, "bottom") for m in range(1, 5)] == [1, 2, 3, 4]
