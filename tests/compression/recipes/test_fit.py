import copy
from dataclasses import replace

import pytest
import torch

from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.recipe import Phase, Recipe, Term
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.terms import TERMS
from autocompress.models.load import adapter_of
from autocompress.training import device
from autocompress.training.checkpoint import Checkpoint
from autocompress.training.loop import TrainingDivergedError
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model


def narrow_student(family):
    """Return a student of fewer layers, channels and heads."""
    model = tiny_model(family, seed=1)
    adapter = adapter_of(model)
    adapter.keep_layers(model, (0, 2))
    adapter.keep_hidden(model, range(32), range(32))
    adapter.keep_heads(model, 1, (0, 2, 3))
    return model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def fitted(student, recipe, teacher, steps=6, **changes):
    """Return the student and the losses of its steps."""
    losses = []
    context = replace(context_for(teacher), on_step=lambda step, total, loss: losses.append((step, total, loss)))
    options = {"learning_rate": 3e-3, "seed": 0} | changes
    return fit(student, recipe, context, steps=steps, **options), losses


@pytest.mark.parametrize("loss", TERMS)
def test_every_loss_falls_for_a_student_of_fewer_layers_channels_and_heads(family, loss):
    recipe, teacher = Recipe((Phase((Term(loss),), schedule="constant"),)), tiny_model(family)
    _, losses = fitted(narrow_student(family), recipe, teacher, steps=40)
    values = torch.tensor([value for _, _, value in losses])
    if loss == "soft_cross_entropy":  # It ends at the teacher's own entropy, by the class.
        logits = torch.cat([context_for(teacher).teacher(batch, ()).logits for batch in batches(40)])
        values -= torch.distributions.Categorical(logits=logits).entropy().mean() / 3
    assert values[-8:].mean() < 0.9 * values[:8].mean()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_counts_all_of_its_steps_and_changes_the_student_alone(name):
    teacher, student = tiny_model("bert"), narrow_student("bert")
    before, shape = copy.deepcopy(teacher.state_dict()), adapter_of(student).shape(student)
    student, losses = fitted(student, RECIPES[name], teacher)
    assert [(step, total) for step, total, _ in losses] == [(step, 6) for step in range(1, 7)]
    assert adapter_of(student).shape(student) == shape
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert set(student.state_dict()) == set(narrow_student("bert").state_dict())


def test_a_recipe_that_asks_for_labels_alone_never_runs_the_teacher(monkeypatch):
    teacher = tiny_model("bert")
    context = context_for(teacher)
    monkeypatch.setattr(teacher, "forward", lambda *_, **__: pytest.fail("The teacher ran."))
    fit(narrow_student("bert"), RECIPES["cross_entropy"], context, steps=2, learning_rate=1e-3, seed=0)


def test_a_recipe_without_dropout_trains_as_if_the_student_had_none(family):
    def trained(probability, *, dropout):
        student = narrow_student(family)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = probability
        recipe = replace(RECIPES["logits"], dropout=dropout)
        return weights(fitted(student, recipe, tiny_model(family))[0])

    reference = trained(0.0, dropout=True)
    assert torch.equal(trained(0.5, dropout=False), reference)
    assert not torch.equal(trained(0.5, dropout=True), reference)


def test_cross_distillation_without_its_two_ideas_is_plain_distillation():
    teacher, start = tiny_model("bert"), narrow_student("bert")
    bare = replace(RECIPES["ei_bert"].without("first_token"), integrates=False, teacher_rate=0.0)
    plain = Recipe((Phase((Term("logits", 0.5), Term("labels", 0.5))),))
    one, other = (fitted(copy.deepcopy(start), recipe, teacher)[0] for recipe in (bare, plain))
    assert torch.equal(weights(one), weights(other))


def test_a_teacher_that_learns_answers_the_student_it_sees():
    teacher, start, recipe = tiny_model("bert"), narrow_student("bert"), RECIPES["ei_bert"]
    ways = {
        "two-way": recipe,
        "one-way": replace(recipe, two_way=False),
        "frozen": replace(recipe, teacher_rate=0.0),
        "not integrated": replace(recipe, integrates=False),
    }
    found = {name: weights(fitted(copy.deepcopy(start), way, teacher)[0]) for name, way in ways.items()}
    assert not any(torch.equal(found["two-way"], other) for name, other in found.items() if name != "two-way")


def test_the_teacher_moves_by_its_own_rate():
    teacher, start, moved = tiny_model("bert"), tiny_model("bert", seed=1), []
    for teacher_rate in (0.01, 0.1):
        recipe = replace(RECIPES["ei_bert"], teacher_rate=teacher_rate)
        student, _ = fitted(copy.deepcopy(start), recipe, teacher, steps=1, learning_rate=1e-3)
        # Task layers are shared, so the student shows how far the teacher's went: AdamW moves each weight by its rate.
        head = adapter_of(student).head_linears(student)[0]
        step = (student.get_submodule(head).weight - teacher.get_submodule(head).weight).detach().abs()
        moved.append(float(step.median()))
    assert moved[0] == pytest.approx(1e-5, rel=0.02)
    assert moved[1] == pytest.approx(1e-4, rel=0.02)


@pytest.mark.parametrize("name", ["logits", "cofi", "minilmv2"])
def test_a_student_that_drops_tokens_drops_them_again_afterwards(family, name):
    student = narrow_student(family)
    adapter_of(student).select_tokens(student, (4, 1))
    student, _ = fitted(student, RECIPES[name], tiny_model(family))
    assert [layer.most_tokens for layer in adapter_of(student).shape(student).layers] == [4, 1]


def test_a_diverging_loss_names_its_step():
    with pytest.raises(TrainingDivergedError, match="step"):
        fitted(narrow_student("bert"), RECIPES["logits"], tiny_model("bert"), steps=20, learning_rate=1e30)


class Interruption(BaseException):
    """What ends a training, as abruptly as a signal."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_was_interrupted_in_its_last_phase_goes_on_there_and_changes_no_bit(name, tmp_path):
    """Phases that had ended are not trained again; a finished recipe is not until its states are discarded."""
    teacher, start, told = tiny_model("bert"), narrow_student("bert"), []

    def run(after=None):
        def on_step(step, total, loss):
            told.append(step)
            if step == after:
                raise Interruption

        context = replace(context_for(teacher), on_step=on_step, checkpoint=Checkpoint(tmp_path, 0.0))
        student = copy.deepcopy(start)
        return fit(student, RECIPES[name], context, steps=8, learning_rate=3e-3, seed=0)

    with pytest.raises(Interruption):
        run(after=7)
    told.clear()
    student = run()
    assert told == [8]
    expected, _ = fitted(copy.deepcopy(start), RECIPES[name], teacher, steps=8)
    assert torch.equal(weights(student), weights(expected))
    assert torch.equal(weights(run()), weights(expected)) and told == [8]


@pytest.mark.parametrize("name", RECIPES)
def test_in_bfloat16_a_student_learns_nearly_the_same_with_weights_and_losses_in_f32(name, monkeypatch):
    teacher, start = tiny_model("bert"), narrow_student("bert")
    whole, losses = fitted(copy.deepcopy(start), RECIPES[name], teacher, steps=20)
    monkeypatch.setattr(device, "MIXED", {"cpu"})
    mixed, rounded = fitted(copy.deepcopy(start), RECIPES[name], teacher, steps=20)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    assert any(as_bfloat16(loss) != loss for _, _, loss in rounded)
    moved = weights(whole) - weights(start)
    apart = (weights(mixed) - weights(whole)).norm() / moved.norm()
    assert 0 < apart < 0.1  # 0.02 to 0.06 of the way that weights went, by the recipe.
    for (*_, one), (*_, other) in zip(losses, rounded, strict=True):
        assert other == pytest.approx(one, rel=0.03)  # 0.02 at most.


def as_bfloat16(value):
    return float(torch.tensor(value).bfloat16())
