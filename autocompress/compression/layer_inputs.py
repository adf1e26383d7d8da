"""What the modules of a model read while calibration documents pass through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from autocompress.training.loop import LabelledBatch, logits_of


class _ReachedError(Exception):
    """A module was reached; nothing after it needs to run."""


@torch.no_grad()
def inputs_of(model: nn.Module, module: nn.Module, batches: Sequence[LabelledBatch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what ``module`` reads (documents x tokens x channels), and which tokens are no padding, for each batch.

    The model runs from its start, so that it may be changed before ``module`` in any way, and no further.

    Args:
        model: In eval mode. Where its layers pass on fewer tokens, real ones go on before padding.
        module: A part of it.
        batches: Documents; labels are not read.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0])
        raise _ReachedError

    for batch in batches:
        handle = module.register_forward_pre_hook(keep)
        try:
            with suppress(_ReachedError):
                logits_of(model, batch.input_ids, batch.attention_mask)
        finally:
            handle.remove()
        x, real = found.pop(), batch.attention_mask.bool()
        if x.shape[1] < real.shape[1]:
            real = torch.arange(x.shape[1]) < real.sum(1, keepdim=True)
        yield x, real
