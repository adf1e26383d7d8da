"""Calibration documents that stand before a layer, and what the modules of that layer read of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from autocompress.compression.sublayers import ReachedError, call_of
from autocompress.models.adapter import LayerModules
from autocompress.training.loop import LabelledBatch


class LayerInputs:
    """Documents on their way through a model that changes layer by layer.

    Args:
        model: In eval mode.
        first: The layer before which they stand.
        batches: Documents; labels are not read.
    """

    def __init__(self, model: nn.Module, first: LayerModules, batches: Sequence[LabelledBatch]) -> None:
        self._calls = [call_of(model, first.layer, batch) for batch in batches]
        self._real = [batch.attention_mask.bool() for batch in batches]

    @torch.no_grad()
    def of(self, layer: LayerModules, path: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the module at ``path`` reads (documents x tokens x channels), and which tokens are no padding.

        Args:
            layer: The one before which the documents stand.
            path: Of a module that it runs.
        """
        for (args, options), real in zip(self._calls, self._real, strict=True):
            found: list[Tensor] = []

            def keep(_module: nn.Module, given: tuple[Tensor, ...], found: list[Tensor] = found) -> None:
                found.append(given[0])
                raise ReachedError

            handle = layer.get(path).register_forward_pre_hook(keep)
            try:
                with suppress(ReachedError):
                    layer.layer(*args, **options)
            finally:
                handle.remove()
            yield found[0], real

    @torch.no_grad()
    def advance(self, layer: LayerModules) -> None:
        """Let the documents pass ``layer``."""
        for index, (args, options) in enumerate(self._calls):
            given = layer.layer(*args, **options)
            hidden = given if isinstance(given, Tensor) else given[0]
            self._calls[index] = ((hidden, *args[1:]), options)
