"""Calibration documents on their way through a model, layer by layer, and what its modules read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from autocompress.models.load import adapter_of
from autocompress.models.selecting import SelectingEncoder
from autocompress.training.batches import LabelledBatch
from autocompress.training.loop import logits_of


def head_inputs(model: nn.Module, path: str, batches: Sequence[LabelledBatch]) -> Iterator[Tensor]:
    """Yield what a linear of the head reads of each batch (documents x units): of one token, which is no padding."""
    for batch in batches:
        yield _reached(model.get_submodule(path), partial(logits_of, model, batch.inputs))


class _ReachedError(Exception):
    """A module was reached; nothing after it needs to run."""


class LayerInputs:
    """Documents that stand before a layer, at first before layer 0.

    What lies before the layer may have been changed while they passed it; nothing is run twice but the layer itself.

    Args:
        model: In eval mode. Where its layers pass on fewer tokens, real ones go on before padding.
        batches: Documents; labels are not read.
    """

    def __init__(self, model: nn.Module, batches: Sequence[LabelledBatch]) -> None:
        adapter = adapter_of(model)
        shape, self._layers = adapter.shape(model), adapter.layers(model)
        pairs = zip(self._layers, shape.layers, strict=True)
        self._steps = [SelectingEncoder([layer], [of.most_tokens], shape.activation).eval() for layer, of in pairs]
        first = self._layers[0]
        reads = first.get(first.attention_norm if first.order == "pre" else first.query)
        self._index = 0
        self._standing = [
            (_reached(reads, partial(logits_of, model, b.inputs)), b.attention_mask.bool()) for b in batches
        ]

    def of(self, path: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what a module of the layer reads (documents x tokens x channels), and which tokens are no padding."""
        layer, step = self._layers[self._index], self._steps[self._index]
        for hidden, real in self._standing:
            x = _reached(layer.get(path), partial(step, hidden, _added(real)))
            yield x, _left(real, x.shape[1])

    @torch.no_grad()
    def advance(self) -> None:
        """Let the documents pass the layer."""
        for place, (hidden, real) in enumerate(self._standing):
            passed = self._steps[self._index](hidden, _added(real)).last_hidden_state
            self._standing[place] = passed, _left(real, passed.shape[1])
        self._index += 1


def _reached(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Return what ``module`` would read first in a run, which ends there."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _ReachedError

    handle = module.register_forward_pre_hook(keep)
    try:
        with torch.no_grad(), suppress(_ReachedError):
            run()
    finally:
        handle.remove()
    return found[0]


def _left(real: Tensor, tokens: int) -> Tensor:
    return real if tokens == real.shape[1] else torch.arange(tokens) < real.sum(1, keepdim=True)


def _added(real: Tensor) -> Tensor:
    """Return what is added to the scores of attention."""
    return torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)[:, None, None, :]
