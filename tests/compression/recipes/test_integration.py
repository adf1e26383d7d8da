import copy

import pytest
import torch

from autocompress.compression.recipes.features import head_units
from autocompress.compression.recipes.integration import integrated
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches
from tests.conftest import tiny_model


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def narrow(family):
    model = tiny_model(family, seed=1)
    adapter_of(model).keep_hidden(model, range(24), range(24))
    return model.eval()


def test_an_equally_wide_student_takes_over_both_task_layers(family):
    teacher, student, batch = tiny_model(family), tiny_model(family, seed=1), batches(1)[0]
    with integrated(student, teacher, (batch, batch), shared=False):
        pass
    ours, theirs = (adapter_of(model).head_linears(model) for model in (student, teacher))
    for path, other in zip(ours, theirs, strict=True):
        assert torch.equal(student.get_submodule(path).weight, teacher.get_submodule(other).weight)
        assert student.get_submodule(path) is not teacher.get_submodule(other)


@pytest.mark.parametrize("shared", [True, False])
def test_the_task_layers_are_one_while_they_are_shared_and_the_students_own_afterwards(family, shared):
    teacher, student, batch = tiny_model(family), tiny_model(family, seed=1), batches(1)[0]
    path = adapter_of(student).head_linears(student)[-1]
    with integrated(student, teacher, (batch, batch), shared=shared):
        assert (student.get_submodule(path) is teacher.get_submodule(path)) == shared
    assert student.get_submodule(path) is not teacher.get_submodule(path)


def test_a_narrow_student_answers_through_the_teachers_classifier_and_keeps_one_linear(family):
    teacher, student, batch = tiny_model(family), narrow(family), batches(1)[0]
    path = adapter_of(student).head_linears(student)[-1]
    with integrated(student, teacher, (batch, batch), shared=True):
        before = logits(student, batch)
        mapped, classifier = student.get_submodule(path)
        assert classifier is teacher.get_submodule(path)
        torch.testing.assert_close(before, classifier(mapped(head_units(student, batch))))
    assert student.get_submodule(path).weight.shape == (3, 24)
    torch.testing.assert_close(logits(student, batch), before, rtol=1e-4, atol=1e-5)
    assert adapter_of(student).shape(student).hidden == 24


def test_the_teacher_is_left_as_it_was(family):
    teacher, batch = tiny_model(family), batches(1)[0]
    kept = copy.deepcopy(teacher.state_dict())
    with integrated(narrow(family), teacher, (batch, batch), shared=True):
        pass
    assert all(torch.equal(kept[name], value) for name, value in teacher.state_dict().items())
