"""Calibration documents on their way through a model, sublayer by sublayer: what a linear reads and should give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.compression.captures import OutputLinear, hooked, module_inputs, output_linears
from autocompress.models.load import adapter_of
from autocompress.training.loop import LabelledBatch, logits_of


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

    def target(self, index: int, residual: Tensor) -> Tensor:
        """Return what the linear at ``index`` should give where ``residual`` (real tokens x hidden) is added to it."""
        return self.sums[index][:, : residual.shape[1]] - residual


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


class Walk:
    """A model that is changed sublayer by sublayer, each seeing what the changed ones before it give.

    Args:
        model: In eval mode.
        batches: Documents.
    """

    def __init__(self, model: nn.Module, batches: Sequence[LabelledBatch]) -> None:
        self._layers = [layer.layer for layer in adapter_of(model).layers(model)]
        self._real = [batch.attention_mask.bool() for batch in batches]
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        for batch in batches:
            self._calls.append(_call_of(model, self._layers[0], batch))
        self.first_token = torch.cat([_firsts(real) for real in self._real])
        """(real tokens,) bool: the first of its document, which the classifier reads."""

    @torch.no_grad()
    def reads(self, layer: int, linear: OutputLinear) -> tuple[Tensor, Tensor]:
        """Return what ``linear`` reads (real tokens x inputs), and the residual added to it (real tokens x hidden)."""
        inputs, residuals = [], []
        for real, (args, options) in zip(self._real, self._calls, strict=True):
            seen = _stop_at(self._layers[layer], args, options, linear)
            inputs.append(seen[0][real])
            residuals.append(seen[1][real] - nn.functional.linear(inputs[-1], linear.module.weight, linear.module.bias))
        return torch.cat(inputs), torch.cat(residuals)

    @torch.no_grad()
    def advance(self, linear: OutputLinear, inputs: Tensor, residual: Tensor) -> None:
        """Take what the layer's last linear reads for the end of the layer: documents stand before the next one."""
        hidden = linear.norm(linear.module(inputs) + residual)
        start = 0
        for index, (real, (args, options)) in enumerate(zip(self._real, self._calls, strict=True)):
            count = int(real.sum())
            padded = torch.zeros_like(args[0])
            padded[real] = hidden[start : start + count]
            self._calls[index] = ((padded, *args[1:]), options)
            start += count


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
            logits_of(model, batch.input_ids, batch.attention_mask)
    finally:
        handle.remove()
    return found[0]


def _stop_at(
    layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any], linear: OutputLinear
) -> tuple[Tensor, Tensor]:
    """Run a layer up to the norm after ``linear``, and return what both read."""
    found: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[index] = inputs[0]
            if index == 1:
                raise _ReachedError

        return hook

    with hooked([linear.module, linear.norm], keep), suppress(_ReachedError):
        layer(*args, **options)
    return found[0], found[1]
