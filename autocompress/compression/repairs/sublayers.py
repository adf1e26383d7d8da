"""Calibration documents on their way through a model, sublayer by sublayer: what a linear reads, and what it adds to.

Post-norm layers, as BERT's, hand on norm(stream + linear(units)), in attention and in feed-forward blocks; pre-norm
layers hand on that sum itself, and norm what attention and feed-forward read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.compression.captures import hooked, module_inputs, output_linears
from autocompress.models.load import adapter_of
from autocompress.models.selecting import ACTIVATIONS
from autocompress.training.batches import LabelledBatch
from autocompress.training.loop import logits_of


class _ReachedError(Exception):
    """A module was reached; nothing after it needs to run."""


@dataclass(frozen=True)
class Documents:
    """Calibration documents, and the sums that the norms of a dense model read.

    Attributes:
        model: The dense one.
        batches: The documents.
        sums: For each of its ``output_linears``, (real tokens x hidden): its output plus the residual.
    """

    model: nn.Module
    batches: tuple[LabelledBatch, ...]
    sums: tuple[Tensor, ...]


def documents_of(model: nn.Module, batches: Iterable[LabelledBatch]) -> Documents:
    """Run a dense model over ``batches``, once."""
    kept: list[LabelledBatch] = []
    parts: list[list[Tensor]] = [[] for _ in output_linears(model)]
    norms = [linear.norm for linear in output_linears(model)]
    for batch, sums in module_inputs(model, norms, batches):
        kept.append(batch)
        real = batch.attention_mask.bool()
        for part, values in zip(parts, sums, strict=True):
            part.append(values[real])
    return Documents(model, tuple(kept), tuple(torch.cat(part) for part in parts))


@dataclass(frozen=True)
class Reading:
    """``inputs`` of a linear (real tokens x inputs) and ``sums`` (real tokens x hidden) that the next norm reads."""

    inputs: Tensor
    sums: Tensor


class Walk:
    """A model that is changed sublayer by sublayer, each seeing what the changed ones before it give.

    Args:
        model: In eval mode.
        batches: Documents.
    """

    def __init__(self, model: nn.Module, batches: Sequence[LabelledBatch]) -> None:
        adapter = adapter_of(model)
        self._layers, self._linears = adapter.layers(model), output_linears(model)
        shape = adapter.shape(model)
        self._activation, self._norms_first = ACTIVATIONS[shape.activation], shape.order == "pre"
        self._real = [batch.attention_mask.bool() for batch in batches]
        self._calls = [_call_of(model, self._layers[0].layer, batch) for batch in batches]
        self.first_token = torch.cat([_firsts(real) for real in self._real])
        """(real tokens,) bool: the first of its document, which the classifier reads."""

    @torch.no_grad()
    def attention(self, layer: int) -> Reading:
        """Return what the output projection of ``layer`` reads; documents stand before the layer."""
        linear, module = self._linears[2 * layer], self._layers[layer].layer
        inputs, sums = [], []
        for real, (args, options) in zip(self._real, self._calls, strict=True):
            found: dict[int, Tensor] = {}

            def keep(index: int, found: dict[int, Tensor] = found) -> Callable[..., None]:
                return lambda _module, given: _take(found, index, given[0], last=1)

            with hooked([linear.module, linear.norm], keep), suppress(_ReachedError):
                module(*args, **options)
            inputs.append(found[0][real])
            sums.append(found[1][real])
        return Reading(torch.cat(inputs), torch.cat(sums))

    @torch.no_grad()
    def feed_forward(self, layer: int, sums: Tensor) -> Reading:
        """Return what the second feed-forward linear reads, for the ``sums`` that the attention's norm reads."""
        linear, modules = self._linears[2 * layer + 1], self._layers[layer]
        normed = self._linears[2 * layer].norm(sums)
        residual = sums if self._norms_first else normed
        inputs = self._activation(modules.get(modules.ffn_in)(normed))
        return Reading(inputs, residual + linear.module(inputs))

    @torch.no_grad()
    def advance(self, layer: int, sums: Tensor) -> None:
        """Let documents stand before the next layer, for the ``sums`` that the last norm of ``layer`` reads."""
        hidden, start = sums if self._norms_first else self._linears[2 * layer + 1].norm(sums), 0
        for index, (real, (args, options)) in enumerate(zip(self._real, self._calls, strict=True)):
            count = int(real.sum())
            padded = torch.zeros_like(args[0])
            padded[real] = hidden[start : start + count]
            self._calls[index] = ((padded, *args[1:]), options)
            start += count


def _take(found: dict[int, Tensor], index: int, value: Tensor, *, last: int) -> None:
    found[index] = value
    if index == last:
        raise _ReachedError


def _firsts(real: Tensor) -> Tensor:
    first = torch.zeros_like(real)
    first[:, 0] = True
    return first[real]


def _call_of(model: nn.Module, layer: nn.Module, batch: LabelledBatch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with which ``model`` calls its first layer; the hidden states are the first."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        found.append((args, options))
        raise _ReachedError

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_ReachedError):
            logits_of(model, batch.inputs)
    finally:
        handle.remove()
    return found[0]
