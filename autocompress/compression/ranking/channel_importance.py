"""How much each hidden channel matters, and a model whose channels are in that order.

A hidden channel is one of the residual stream, the same in every layer; the units between the head's two linears are
counted apart, since they are as many and yet others. Reordering both changes no output, and makes any number of kept
channels a slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.models.load import adapter_of
from autocompress.training.batches import TrainingBatch


@dataclass(frozen=True)
class ChannelScores:
    """Importance of every hidden channel, and of every unit of the head; both (hidden,)."""

    channels: Tensor
    units: Tensor


@torch.no_grad()
def channel_scores(model: nn.Module, batches: Iterable[TrainingBatch]) -> ChannelScores:
    """Return what activations say of channels and units; neither labels nor gradients are needed.

    Channels, as Minitron scores them (Muralidharan et al. 2024, section 2.2, in the aggregation of its code): of each
    norm's outputs a, sqrt(sum over sequences of (mean over real tokens of |a|)^2), summed over the norms. Units, as
    Wanda scores weights (Sun et al. 2024, equation 1): sqrt(sum over sequences of a^2) times the length of the unit's
    classifier weights, from which their mean over classes is taken: what moves all logits alike moves no probability.
    """
    adapter = adapter_of(model)
    norms, classifier = adapter.hidden_norms(model), adapter.classifier_linear(model)
    squares = [torch.zeros(1)] * (len(norms) + 1)
    for batch in batches:
        mask = batch.attention_mask[:, :, None].float()
        with _recorded(norms, classifier) as seen:
            model(**batch.inputs)
        *outputs, units = seen
        means = [(output.abs() * mask).sum(1) / mask.sum(1) for output in outputs]
        squares = [total + part.square().sum(0) for total, part in zip(squares, [*means, units], strict=True)]
    *channels, units = (total.sqrt() for total in squares)
    weight = classifier.get_parameter("weight")
    return ChannelScores(torch.stack(channels).sum(0), units * (weight - weight.mean(0)).norm(dim=0))


@contextmanager
def _recorded(norms: list[nn.Module], classifier: nn.Module) -> Iterator[list[Tensor]]:
    """Record what norms (batch x tokens x channels) put out and what the classifier (batch x units) takes in."""
    seen: list[Tensor] = []
    hooks = [norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output)) for norm in norms]
    hooks.append(classifier.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def order_hidden(model: nn.Module, scores: ChannelScores) -> nn.Module:
    """Reorder hidden channels and the head's units in place, the most important first; outputs stay the same."""
    orders = [each.argsort(descending=True, stable=True).tolist() for each in (scores.channels, scores.units)]
    adapter_of(model).keep_hidden(model, *orders)
    return model
