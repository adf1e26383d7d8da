"""What a model computes on its way to the logits, token by token: hidden states, queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.models.load import adapter_of
from autocompress.training.batches import ModelBatch
from autocompress.training.device import widened
from autocompress.training.loop import logits_of

FeatureKind: TypeAlias = Literal["hidden", "query", "key", "value"]


@dataclass(frozen=True, order=True)
class Feature:
    """One of them, (documents x tokens x channels).

    Attributes:
        kind: ``hidden``: what a layer hands on; the others: what its attention is made of, all heads side by side.
        layer: From 1, for the first; ``hidden`` of 0 are the embeddings, as the first layer reads them.
    """

    kind: FeatureKind
    layer: int


@dataclass(frozen=True)
class Outputs:
    """What came of a batch: logits (documents x classes) and the features that were asked for."""

    logits: Tensor
    features: Mapping[Feature, Tensor]


def observe(model: nn.Module, batch: ModelBatch, wanted: Iterable[Feature]) -> Outputs:
    """Run ``model`` on ``batch``; gradients flow through everything returned, if they are switched on."""
    found: dict[Feature, Tensor] = {}
    handles = [_watch(model, feature, found) for feature in dict.fromkeys(wanted)]
    try:
        logits = logits_of(model, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Outputs(logits, found)


def _watch(model: nn.Module, feature: Feature, found: dict[Feature, Tensor]) -> Any:
    """Hook the module that computes or reads a feature: a linear or a norm, which is called however its layer runs."""
    adapter = adapter_of(model)
    layers = adapter.layers(model)
    reads: Callable[..., None] = lambda _module, inputs: found.update({feature: widened(inputs[0])})  # noqa: E731
    gives: Callable[..., None] = lambda _module, _inputs, output: found.update({feature: widened(output)})  # noqa: E731
    first = layers[0].order == "pre"
    if feature.layer == 0:
        return layers[0].get(layers[0].attention_norm if first else layers[0].query).register_forward_pre_hook(reads)
    layer = layers[feature.layer - 1]
    if feature.kind != "hidden":
        return layer.get(str(getattr(layer, feature.kind))).register_forward_hook(gives)
    norm = adapter.sum_norms(model)[2 * feature.layer - 1]
    return norm.register_forward_pre_hook(reads) if first else norm.register_forward_hook(gives)


@torch.no_grad()
def head_units(model: nn.Module, batch: ModelBatch) -> Tensor:
    """Return what the last linear of the head reads (documents x units)."""
    found: list[Tensor] = []
    path = adapter_of(model).head_linears(model)[-1]
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    try:
        logits_of(model, batch.inputs)
    finally:
        handle.remove()
    return found[0]
