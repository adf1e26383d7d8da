"""Students on another device than batches and what is kept of teachers; torch's ``meta`` stands in for a GPU."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autocompress.compression.recipes import fit, lessons, teacher
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.terms import TERMS, Pair
from autocompress.models.load import adapter_of
from tests.compression.recipes.test_fit import narrow_student
from tests.compression.training_data import batches, context_for, masked
from tests.conftest import tiny_model

META = torch.device("meta")


class Watch(TorchDispatchMode):
    """Notes operations on tensors of several devices that do not copy; scalars may come from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors if tensor.ndim}) > 1 and "copy" not in str(operation):
            self.mixed.add(str(operation))
        if operation is torch.ops.aten._local_scalar_dense.default and tensors[0].device == META:
            return True  # What is asked is whether padding can be left out of account; there are no values to tell.
        return operation(*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, recipe in RECIPES.items() for number in range(len(recipe.phases))]
)
def test_all_that_a_step_computes_lies_on_the_students_device(name, number, monkeypatch):
    for module in (fit, lessons, teacher):  # There is no autocast for ``meta``.
        monkeypatch.setattr(module, "full_precision", lambda device: nullcontext())
    recipe, model, student = RECIPES[name], tiny_model("bert"), narrow_student("bert")
    phase, context = recipe.phases[number], context_for(model)
    shapes = [adapter_of(each).shape(each) for each in (student, model)]
    pair = Pair(*shapes, recipe.layer_map)
    widens = any(TERMS[loss].widens(pair) for loss in recipe.losses)
    trainee = fit.Trainee(
        student,
        nn.Linear(*(shape.hidden for shape in shapes)) if widens else None,
        tiny_model("bert") if recipe.teacher_rate else None,
    )
    lesson = context.lesson(phase.lesson)
    trainee.head = lesson.head(student)
    trainee.to(META)
    batch = (masked if phase.lesson == "text" else batches)(1, 0)[0]
    with Watch() as watch:
        loss = fit.phase_loss(phase, recipe, pair, lesson)(trainee, batch)
        loss.backward()
    assert loss.device == META and not watch.mixed


def test_the_watch_notes_a_tensor_that_was_left_behind():
    with Watch() as watch:
        torch.ones(3, 3, device=META) @ torch.ones(3, 3)
    assert watch.mixed
