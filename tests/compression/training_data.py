"""A few random batches to train on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.method import Context
from autocompress.compression.order import Rankings
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.compression.repairs.sublayers import documents_of


@dataclass(frozen=True)
class Batch:
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    indices: Tensor


def batches(count: int, seed: int = 0) -> list[Batch]:
    """Return ``count`` batches of 4 of 8 examples; an example looks the same whenever it comes."""
    generator = torch.Generator().manual_seed(99)
    ids = torch.randint(5, 40, (8, 6), generator=generator)  # Students of 40 of the 60 tokens can read them too.
    labels = torch.randint(0, 3, (8,), generator=generator)
    order = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(8, generator=order)[:4] for _ in range(count)]
    return [Batch(ids[pick], torch.ones(4, 6, dtype=torch.int64), labels[pick], pick) for pick in picks]


def context_for(teacher: nn.Module) -> Context:
    return Context(
        batches=batches,
        teacher=TeacherOutputs(teacher),
        rankings=Rankings(teacher, lambda: batches(2)),
        documents=lambda count, seed: documents_of(teacher, batches(count, seed)),
    )
