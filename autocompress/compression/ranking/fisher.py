"""Importance from the gradient of the loss with respect to a mask on each unit: Taylor, diagonal and block Fisher.

A mask m multiplies what each unit hands to its output linear; gradients are taken at m = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.captures import hooked, labels_of, output_linears
from autocompress.compression.ranking.importance import LayerRanking, Ranking, by_removal, by_score, paired
from autocompress.training.batches import TrainingBatch
from autocompress.training.loop import logits_of


@dataclass(frozen=True)
class MaskGradients:
    """dL/dm of one layer: (samples x heads) and (samples x neurons), a sample being a document or a batch."""

    heads: Tensor
    neurons: Tensor


def mask_gradients(
    model: nn.Module, batches: Iterable[TrainingBatch], *, each: Literal["document", "batch"] = "document"
) -> list[MaskGradients]:
    """Return each layer's gradients of the cross-entropy, of every document's own or of every batch's mean.

    Raises:
        ConfigError: A batch has no labels.
    """
    linears = output_linears(model)
    rows: list[list[Tensor]] = [[] for _ in linears]
    for batch in batches:
        labels = labels_of(batch)
        masks = [
            torch.ones(len(labels), linear.module.in_features // linear.width, requires_grad=True) for linear in linears
        ]

        def multiply(index: int, masks: list[Tensor] = masks) -> Callable[..., Tensor]:
            mask = masks[index].repeat_interleave(linears[index].width, 1)[:, None]
            return lambda _module, inputs: inputs[0] * mask

        with torch.enable_grad(), hooked([linear.module for linear in linears], multiply):
            logits = logits_of(model, batch.inputs)
            # A document's mask reaches its own loss alone: the gradient of the sum holds that of each.
            gradients = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), masks)
        for row, gradient in zip(rows, gradients, strict=True):
            row.append(gradient if each == "document" else gradient.mean(0, keepdim=True))
    found = [torch.cat(row) for row in rows]
    return [MaskGradients(heads, neurons) for heads, neurons in zip(found[::2], found[1::2], strict=True)]


def taylor(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by the mean over documents of |dL/dm| (Michel et al. 2019, equation 2; DynaBERT's head importance).

    The magnitude is taken document by document: summed with their signs, gradients cancel in a model that is fitted.
    """
    return _scored(mask_gradients(model, batches), lambda gradients: gradients.abs().mean(0))


def fisher(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by the diagonal Fisher information, sum over batches of (dL/dm)^2 (Kwon et al. 2022, section 4.1)."""
    return _scored(mask_gradients(model, batches, each="batch"), lambda gradients: gradients.square().sum(0))


def block_fisher(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by greedy removal: next goes the unit with which |sum of removed g|^2, over documents, grows least.

    That sum is the quadratic form of the Fisher block of one layer, cross terms included (Kwon et al. 2022, equation
    11), for every number of removed units at once: their orders are nested, ``mask_search.rearranged`` is not.
    """
    found = mask_gradients(model, batches)
    return tuple(LayerRanking(_greedy(layer.heads), _greedy(layer.neurons)) for layer in found)


def _scored(found: Sequence[MaskGradients], score: Callable[[Tensor], Tensor]) -> tuple[LayerRanking, ...]:
    return paired([by_score(score(part)) for layer in found for part in (layer.heads, layer.neurons)])


def _greedy(gradients: Tensor) -> Ranking:
    """Rank units by ``block_fisher`` for gradients (samples x units)."""
    gradients = gradients.double()
    squares, left = gradients.square().sum(0), torch.ones(gradients.shape[1], dtype=torch.bool)
    gone = torch.zeros(gradients.shape[0], dtype=torch.float64)
    removed: list[int] = []
    costs: list[float] = []
    for _ in range(gradients.shape[1]):
        growth = torch.where(left, squares + 2.0 * (gone @ gradients), torch.inf)
        unit = int(growth.argmin())
        removed.append(unit)
        costs.append(float(growth[unit]))
        gone, left[unit] = gone + gradients[:, unit], False
    return by_removal(removed, costs)
