"""A few random batches to train on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.compression.method import Context
from autocompress.compression.order import Rankings
from autocompress.compression.recipes.lessons import Answering, Guessing
from autocompress.compression.recipes.masking import NOT_ASKED, MaskedBatch
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.compression.repairs.sublayers import documents_of
from autocompress.feeds import PIXELS
from autocompress.models.language_head import new_head
from autocompress.models.load import adapter_of
from autocompress.shape import Pixels
from autocompress.training.batches import TokenBatch


@dataclass(frozen=True)
class Batch(TokenBatch):
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


@dataclass(frozen=True)
class Images:
    inputs: dict[str, Tensor]
    attention_mask: Tensor
    labels: Tensor
    indices: Tensor


def images(pixels: Pixels, count: int, seed: int = 0) -> list[Images]:
    """Return the same of images."""
    generator = torch.Generator().manual_seed(99)
    whole = torch.randn(8, pixels.channels, pixels.height, pixels.width, generator=generator)
    real = torch.ones(8, pixels.learned + pixels.patches, dtype=torch.int64)
    return [
        Images({PIXELS: whole[batch.indices]}, real[batch.indices], batch.labels, batch.indices)
        for batch in batches(count, seed)
    ]


def batches_of(model: nn.Module) -> Callable[[int, int], list[Any]]:
    """Return what makes so many batches, of a seed, of what ``model`` reads."""
    pixels = adapter_of(model).shape(model).pixels
    return batches if pixels is None else partial(images, pixels)


def masked(count: int, seed: int) -> list[MaskedBatch]:
    """Return the same batches with two of their 24 tokens masked, as token 4."""
    found = []
    for batch in batches(count, seed):
        labels = torch.full_like(batch.input_ids, NOT_ASKED)
        labels[:2, 1] = batch.input_ids[:2, 1]
        ids = batch.input_ids.masked_fill(labels != NOT_ASKED, 4)
        found.append(MaskedBatch(ids, batch.attention_mask, labels))
    return found


def context_for(teacher: nn.Module) -> Context:
    """Return what methods may use; text and varied documents are the batches themselves."""
    outputs, some = TeacherOutputs(teacher), batches_of(teacher)
    context = Context(
        batches=some,
        teacher=outputs,
        rankings=Rankings(teacher, lambda: some(2, 0)),
        documents=lambda count, seed: documents_of(teacher, some(count, seed)),
        varied=lambda: Answering(some, outputs),
    )
    if some is not batches:
        return context
    head = new_head(teacher, generator=torch.Generator().manual_seed(0))
    return replace(context, text=lambda: Guessing(masked, teacher, head, counts=torch.ones(60)))
