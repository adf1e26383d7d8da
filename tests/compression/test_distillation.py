from typing import get_args

import torch
from torch.nn import functional

from autocompress.compression.distillation import DistillStep, apply
from autocompress.compression.recipes.table import RECIPES
from autocompress.plan import RecipeName
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model


def test_every_recipe_can_be_named():
    assert set(get_args(RecipeName)) == set(RECIPES)


def test_distillation_brings_the_student_nearer_to_its_teacher():
    teacher, student = tiny_model("bert"), tiny_model("bert", seed=1)
    batch = batches(1)[0]

    def distance(model) -> float:
        with torch.no_grad():
            outputs = [
                m(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits for m in (teacher, model)
            ]
        return float(functional.mse_loss(*(functional.log_softmax(logits, -1) for logits in outputs)))

    before = distance(student)
    apply(student, DistillStep(30, 3e-3, 0, "self_distillation"), context_for(teacher))
    assert distance(student) < 0.5 * before


def test_no_steps_leave_the_student_as_it_is():
    student = tiny_model("bert", seed=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    apply(student, DistillStep(0, 3e-3, 0), context_for(tiny_model("bert")))
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
