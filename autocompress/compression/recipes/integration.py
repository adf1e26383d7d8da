"""Parameter integration: a student answers through its teacher's task layers.

EI-BERT (Wang et al. 2025) puts the teacher's fine-tuned task layers into the student; how is not published, and this is
a reconstruction. Where the models are equally wide, the student takes over the dense layer of the head and the
classifier. Where it is narrower it takes over the classifier alone, behind a linear map from its own units to the
teacher's, which in the end is multiplied into the classifier, so that it costs nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from autocompress.compression.recipes.features import head_units
from autocompress.compression.recipes.widening import widening
from autocompress.models.load import adapter_of
from autocompress.training.batches import LabelledBatch


@contextmanager
def integrated(
    student: nn.Module, teacher: nn.Module, batches: tuple[LabelledBatch, LabelledBatch], *, shared: bool
) -> Iterator[None]:
    """Give ``student`` the task layers of ``teacher``, for as long as it is trained; afterwards all are its own.

    Args:
        student: Changed in place.
        teacher: Of as many classes.
        batches: The same documents as the student and as the teacher read them: a narrow student's map starts by them.
        shared: Whether both models have the very same task layers, which they then train together.
    """
    ours, theirs = adapter_of(student), adapter_of(teacher)
    paths = list(zip(ours.head_linears(student), theirs.head_linears(teacher), strict=True))
    narrow = ours.shape(student).hidden != theirs.shape(teacher).hidden
    taken = paths[-1:] if narrow else paths
    before: tuple[nn.Module, ...] = ()
    if narrow:
        units, wanted = (head_units(model, batch) for model, batch in zip((student, teacher), batches, strict=True))
        before = (widening([units], [wanted], equal=False),)
    for path, other in taken:
        module = teacher.get_submodule(other)
        module = module if shared else copy.deepcopy(module)
        student.set_submodule(path, nn.Sequential(*before, module) if before else module)
    try:
        yield
    finally:
        for path, _ in taken:
            module = student.get_submodule(path)
            student.set_submodule(path, _folded(module) if isinstance(module, nn.Sequential) else copy.deepcopy(module))


@torch.no_grad()
def _folded(both: nn.Sequential) -> nn.Linear:
    """Return one linear that does what two do, W (P x + p) + b."""
    inner, outer = both
    assert isinstance(inner, nn.Linear) and isinstance(outer, nn.Linear)
    linear = nn.Linear(inner.in_features, outer.out_features).to(inner.weight.device)
    linear.weight.copy_(outer.weight @ inner.weight)
    linear.bias.copy_(outer.weight @ inner.bias + outer.bias)
    return linear
