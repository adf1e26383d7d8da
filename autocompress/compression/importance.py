"""How much each attention head and feed-forward neuron matters, and a model whose units are in that order.

Importance is the diagonal Fisher information of a mask on the unit, I = sum over batches of (dL/dm)^2 at m = 1, L the
cross-entropy (Kwon et al. 2022, section 4.1). Reordering the units changes no output, and makes any number of kept
units a slice (the rewiring of DynaBERT, Hou et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.method import TrainingBatch
from autocompress.models.load import adapter_of


@dataclass(frozen=True)
class UnitScores:
    """Importance of every unit of one layer."""

    heads: Tensor
    neurons: Tensor


def fisher_scores(model: nn.Module, batches: Iterable[TrainingBatch]) -> list[UnitScores]:
    """Return the scores of each layer: heads (heads,), neurons (ffn,)."""
    layers = adapter_of(model).layers(model)
    shapes = adapter_of(model).shape(model).layers
    scores = [UnitScores(torch.zeros(shape.heads), torch.zeros(shape.ffn)) for shape in shapes]
    for batch in batches:
        with _masks(model) as masks, torch.enable_grad():
            logits: Any = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            loss = functional.cross_entropy(logits, batch.labels)
            gradients = torch.autograd.grad(loss, masks)
        for score, layer, head, neuron in zip(scores, layers, gradients[::2], gradients[1::2], strict=True):
            score.heads.add_(head.reshape(-1, layer.head_width).sum(1).square())
            score.neurons.add_(neuron.square())
    return scores


@contextmanager
def _masks(model: nn.Module) -> Iterator[list[Tensor]]:
    """Multiply the inputs of each output projection and second feed-forward linear by masks of ones."""
    masks: list[Tensor] = []
    hooks = []
    for layer in adapter_of(model).layers(model):
        for path in (layer.output, layer.ffn_out):
            linear = layer.get(path)
            assert isinstance(linear, nn.Linear)
            masks.append(torch.ones(linear.in_features, requires_grad=True))
            hooks.append(linear.register_forward_pre_hook(_multiply(masks[-1])))
    try:
        yield masks
    finally:
        for hook in hooks:
            hook.remove()


def _multiply(mask: Tensor) -> Any:
    return lambda _module, inputs: (inputs[0] * mask,)


def order_units(model: nn.Module, scores: list[UnitScores]) -> nn.Module:
    """Reorder each layer's heads and neurons in place, the most important first; outputs stay the same."""
    adapter = adapter_of(model)
    for index, score in enumerate(scores):
        adapter.keep_heads(model, index, score.heads.argsort(descending=True, stable=True).tolist())
        adapter.keep_neurons(model, index, score.neurons.argsort(descending=True, stable=True).tolist())
    return model
