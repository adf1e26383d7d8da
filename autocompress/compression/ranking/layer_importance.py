"""In which order a teacher's layers are best left out, by what is measured of it on calibration batches.

Every order nests: of fewer layers none stays that did not stay of more. None needs labels or gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.models.load import adapter_of
from autocompress.plan import LayerSelection
from autocompress.training.batches import TrainingBatch


@torch.no_grad()
def block_influence(model: nn.Module, batches: Sequence[TrainingBatch]) -> Tensor:
    """Return (layers,) 1 - cos(what goes into a layer, what comes out), the mean over the batches' real tokens.

    Source: ShortGPT (Men et al. 2024, equation 1), used for depth by Minitron (Sreenivas et al. 2024); 0 to 2.
    """
    total, tokens = torch.zeros(len(adapter_of(model).layers(model)), dtype=torch.float64), 0
    for batch in batches:
        with _recorded(model) as seen:
            logits(model, [batch])
        real = batch.attention_mask.bool()
        turned = [1 - functional.cosine_similarity(x[real], y[real], -1).double() for x, y in seen]
        total += torch.stack(turned).sum(1)
        tokens += int(real.sum())
    return total / tokens


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record what goes into each layer and what comes out of it, (batch x tokens x channels), as the model runs."""
    seen: list[tuple[Tensor, Tensor]] = []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append((inputs[0], output if isinstance(output, Tensor) else output[0]))

    hooks = [layer.layer.register_forward_hook(record) for layer in adapter_of(model).layers(model)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def block_influence_order(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[int, ...]:
    """Return all layers, that of least influence first; of equals, the earlier."""
    return tuple(block_influence(model, batches).argsort(stable=True).tolist())


def replace_one_order(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[int, ...]:
    """Return all layers, each the one whose leaving moves the logits least, the earlier ones being gone already.

    This is backward elimination: the score of one layer left out (the replace-one score of Puzzle, Bercovich et al.
    2025, and the drop-one loss of Minitron) is taken anew after each, since scores of single layers do not add up. A
    score is the mean over the examples of KL(softmax(teacher) || softmax(without)); of equals, the earlier layer goes.
    Each step is the best there is, and so is the first as a whole; further ones need not be: a set that does not nest,
    or the uniform map, may move the logits less. N layers take (N + 2)(N - 1) / 2 runs over the batches.
    """
    expected = logits(model, batches)
    order: list[int] = []
    left = list(range(len(adapter_of(model).layers(model))))
    while len(left) > 1:
        without = [[other for other in left if other != layer] for layer in left]
        moved = [divergence(expected, logits(with_layers(model, kept), batches)) for kept in without]
        order.append(left.pop(moved.index(min(moved))))
    return (*order, *left)


ORDERS: dict[LayerSelection, Callable[[nn.Module, Sequence[TrainingBatch]], tuple[int, ...]]] = {
    "block_influence": block_influence_order,
    "replace_one": replace_one_order,
}
"""Selections of ``compression.depth`` that are measured."""


def divergence(teacher: Tensor, student: Tensor) -> float:
    """Return the mean over examples of KL(softmax(teacher) || softmax(student)), logits (examples x classes)."""
    logs = functional.log_softmax(student.double(), -1), functional.log_softmax(teacher.double(), -1)
    return float(functional.kl_div(*logs, reduction="batchmean", log_target=True))


def with_layers(model: nn.Module, kept: Sequence[int]) -> nn.Module:
    """Return a model of the given layers of ``model``, which shares its weights."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    student = copy.deepcopy(model, shared)
    adapter_of(student).keep_layers(student, kept)
    return student


@torch.no_grad()
def logits(model: nn.Module, batches: Sequence[TrainingBatch]) -> Tensor:
    """Return the logits (examples x classes) of all examples, in their order."""
    outputs = (model(**batch.inputs) for batch in batches)
    return torch.cat([output.logits for output in outputs])
