"""Modules that keep some rows, channels or outputs of others; what is not kept is gone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autocompress.errors import UnsupportedError
from autocompress.models.adapter import LayerModules


def select_linear(module: nn.Module, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> nn.Linear:
    """Return a linear that keeps the given output or input channels; the others are gone."""
    if not isinstance(module, nn.Linear):
        raise unsupported("pruning of weights that are already quantized", "pruning before quantization")
    weight, bias = module.weight.detach(), module.bias.detach()
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    smaller.weight, smaller.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return smaller.train(module.training)


def select_channels(module: nn.Module, columns: Tensor) -> nn.Embedding:
    """Return a table that keeps the given channels of each row."""
    if not isinstance(module, nn.Embedding):
        raise unsupported("fewer channels of a table that is quantized or factorised", "pruning before either")
    weight = module.weight.detach()[:, columns].clone()
    smaller = nn.Embedding(module.num_embeddings, len(columns), padding_idx=module.padding_idx, _weight=weight)
    return smaller.train(module.training)


def select_norm(module: nn.Module, channels: Tensor) -> nn.LayerNorm:
    """Return a norm of the given channels alone: mean and variance are theirs."""
    smaller = nn.LayerNorm(len(channels), eps=float(module.eps))  # type: ignore[arg-type]
    smaller.weight, smaller.bias = (
        nn.Parameter(getattr(module, name).detach()[channels]) for name in ("weight", "bias")
    )
    return smaller.train(module.training)


def select_rows(like: nn.Embedding, rows: Tensor, padding: int) -> nn.Embedding:
    """Return a table of ``rows`` (ids x channels), trainable as ``like`` is."""
    table = nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=None if like.padding_idx is None else padding)
    table.weight = nn.Parameter(rows.clone(), requires_grad=like.weight.requires_grad)
    return table.train(like.training)


def select_heads(layer: LayerModules, kept: Tensor) -> None:
    """Keep the attention heads ``kept`` of a layer, in that order."""
    channels = (kept[:, None] * layer.head_width + torch.arange(layer.head_width)).reshape(-1)
    for path in (layer.query, layer.key, layer.value):
        layer.replace(path, select_linear(layer.get(path), outputs=channels))
    layer.replace(layer.output, select_linear(layer.get(layer.output), inputs=channels))


def select_neurons(layer: LayerModules, kept: Tensor) -> None:
    """Keep the feed-forward neurons ``kept`` of a layer, in that order."""
    layer.replace(layer.ffn_in, select_linear(layer.get(layer.ffn_in), outputs=kept))
    layer.replace(layer.ffn_out, select_linear(layer.get(layer.ffn_out), inputs=kept))


def select_hidden(layer: LayerModules, kept: Tensor) -> None:
    """Keep the hidden channels ``kept`` of a layer, in that order."""
    for path in (layer.query, layer.key, layer.value, layer.ffn_in):
        layer.replace(path, select_linear(layer.get(path), inputs=kept))
    for path in (layer.output, layer.ffn_out):
        layer.replace(path, select_linear(layer.get(path), outputs=kept))
    for path in (layer.attention_norm, layer.ffn_norm):
        layer.replace(path, select_norm(layer.get(path), kept))


def unsupported(what: str, right: str) -> UnsupportedError:
    """Return the error of a model that needs ``what``, where ``right`` is supported."""
    return UnsupportedError(
        f"This model needs {what}.",
        right=f"Models are supported with {right}.",
        next_step="Choose another model, or add an adapter as docs/how_to_add.md says.",
    )
