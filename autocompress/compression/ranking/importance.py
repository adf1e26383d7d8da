"""How much each attention head and feed-forward neuron matters: the form of every answer, and the plainest answers.

Two answers need no gradients: the size of the weights, and the size of what flows through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autocompress.compression.captures import output_linears, unit_inputs
from autocompress.models.adapter import LayerModules
from autocompress.models.load import adapter_of
from autocompress.training.batches import TrainingBatch


@dataclass(frozen=True)
class Ranking:
    """The heads, or the neurons, of one layer.

    Attributes:
        order: Their indices, the most important first.
        importance: Of each in that order, never rising and never below 0: what its removal costs, in the measure of
            the criterion, once all after it are gone.
    """

    order: tuple[int, ...]
    importance: tuple[float, ...]


@dataclass(frozen=True)
class LayerRanking:
    """Both kinds of units of one layer."""

    heads: Ranking
    neurons: Ranking


def by_score(scores: Tensor) -> Ranking:
    """Rank units by scores (units,) that do not depend on which others are left; equal ones keep their order."""
    order = scores.argsort(descending=True, stable=True)
    return Ranking(tuple(order.tolist()), tuple(scores[order].tolist()))


def by_removal(removed: Sequence[int], costs: Sequence[float]) -> Ranking:
    """Rank units by when they were removed, the last one first.

    Where a unit cost less than one that went before it, both count with the larger cost: it cannot go alone.
    """
    highest, rising = 0.0, []
    for cost in costs:
        highest = max(highest, cost)
        rising.append(highest)
    return Ranking(tuple(reversed(removed)), tuple(reversed(rising)))


def magnitude(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by the squared L2 norm of a unit's weights: the share of all squares that goes with it.

    A head's are its rows of Q, K and V and its columns of the output projection; a neuron's its row of the first
    linear and its column of the second. No batch is read.
    """

    def score(layer: LayerModules, into: Sequence[str], out_of: str, width: int) -> Ranking:
        rows = torch.stack([_weight(layer, path).square().sum(1) for path in into])
        squares = rows.sum(0) + _weight(layer, out_of).square().sum(0)
        return by_score(squares.reshape(-1, width).sum(1))

    return tuple(
        LayerRanking(
            heads=score(layer, (layer.query, layer.key, layer.value), layer.output, layer.head_width),
            neurons=score(layer, (layer.ffn_in,), layer.ffn_out, 1),
        )
        for layer in adapter_of(model).layers(model)
    )


def l2p(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank neurons by the L2 norm of their weights, sqrt(|W1[j, :]|^2 + |W2[:, j]|^2), within their layer.

    Layer-wise L2-norm pruning of the feed-forward block (Sander et al. 2025). The abstract names the method; which
    matrices enter the norm is a reconstruction. Heads are not ranked: they keep their order, all of importance 0.
    """

    def score(layer: LayerModules) -> Tensor:
        return (_weight(layer, layer.ffn_in).square().sum(1) + _weight(layer, layer.ffn_out).square().sum(0)).sqrt()

    layers = adapter_of(model).layers(model)
    heads = [shape.heads for shape in adapter_of(model).shape(model).layers]
    return tuple(
        LayerRanking(by_score(torch.zeros(count)), by_score(score(layer)))
        for count, layer in zip(heads, layers, strict=True)
    )


def activation(model: nn.Module, batches: Sequence[TrainingBatch]) -> tuple[LayerRanking, ...]:
    """Rank by what flows out of a unit: sqrt(sum over documents of (mean over tokens of |a|)^2).

    a is a neuron's activation, or the vector that a head hands to the output projection (its L2 norm); the mean is
    over real tokens (Muralidharan et al. 2024, Minitron, section 2.2). Forward passes only; labels are not read.
    """
    widths = [linear.width for linear in output_linears(model)]
    squares = [torch.zeros(linear.module.in_features // linear.width) for linear in output_linears(model)]
    for batch, inputs in unit_inputs(model, batches):
        real = batch.attention_mask[..., None] / batch.attention_mask.sum(1)[:, None, None]
        for total, width, values in zip(squares, widths, inputs, strict=True):
            sizes = values.reshape(*values.shape[:2], -1, width).norm(dim=-1)
            total.add_((sizes * real).sum(1).square().sum(0))
    return paired([by_score(total.sqrt()) for total in squares])


def paired(rankings: Sequence[Ranking]) -> tuple[LayerRanking, ...]:
    """Return rankings that come as heads, neurons, heads, neurons, ... by layer."""
    pairs = zip(rankings[::2], rankings[1::2], strict=True)
    return tuple(LayerRanking(heads, neurons) for heads, neurons in pairs)


def combined(heads: Sequence[LayerRanking], neurons: Sequence[LayerRanking]) -> tuple[LayerRanking, ...]:
    """Return the heads' ranking of one criterion with the neurons' of another."""
    return tuple(replace(one, neurons=other.neurons) for one, other in zip(heads, neurons, strict=True))


def reorder(model: nn.Module, rankings: Sequence[LayerRanking]) -> nn.Module:
    """Put each layer's heads and neurons in order, in place, the most important first; outputs stay the same.

    This is the rewiring of DynaBERT (Hou et al. 2020, section 2.1): any number of kept units is then a slice.
    """
    adapter = adapter_of(model)
    for index, layer in enumerate(rankings):
        adapter.keep_heads(model, index, layer.heads.order)
        adapter.keep_neurons(model, index, layer.neurons.order)
    return model


def _weight(layer: LayerModules, path: str) -> Tensor:
    weight = layer.get(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach()
