"""The linear maps whose inputs are heads and neurons, and what flows into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from autocompress.training.batches import LabelledBatch
from autocompress.training.loop import logits_of

B = TypeVar("B", bound=LabelledBatch)


@dataclass(frozen=True)
class OutputLinear:
    """A linear map that adds to the residual stream.

    Attributes:
        module: Its input channels are those of the units, side by side.
        norm: Reads the sum of its output and the residual stream: in pre-norm layers it is the next one's.
        width: Channels of one unit: a head's, or 1 for neurons.
    """

    module: nn.Linear
    norm: nn.Module
    width: int


def output_linears(model: nn.Module) -> list[OutputLinear]:
    """Return, layer by layer, the attention's output projection and the second feed-forward linear."""
    adapter = adapter_of(model)
    maps = [
        (layer.get(path), width)
        for layer in adapter.layers(model)
        for path, width in ((layer.output, layer.head_width), (layer.ffn_out, 1))
    ]
    found = []
    for (module, width), norm in zip(maps, adapter.sum_norms(model), strict=True):
        assert isinstance(module, nn.Linear)
        found.append(OutputLinear(module, norm, width))
    return found


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
    """Put ``hook(i)`` before the forward pass of each module, and take it off again."""
    handles = [module.register_forward_pre_hook(hook(index)) for index, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def module_inputs(
    model: nn.Module, modules: Iterable[nn.Module], batches: Iterable[B]
) -> Iterator[tuple[B, list[Tensor]]]:
    """Yield each batch with the first input of each of ``modules``, all (documents x tokens x channels)."""
    modules = list(modules)
    found: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        return lambda _module, inputs: found.update({index: inputs[0]})

    with hooked(modules, keep):
        for batch in batches:
            logits_of(model, batch.inputs)
            yield batch, [found[index] for index in range(len(modules))]


def unit_inputs(model: nn.Module, batches: Iterable[B]) -> Iterator[tuple[B, list[Tensor]]]:
    """Yield each batch with the inputs of ``output_linears``."""
    return module_inputs(model, [linear.module for linear in output_linears(model)], batches)


def labels_of(batch: LabelledBatch) -> Tensor:
    """Return the classes (documents,) of a calibration batch.

    Raises:
        ConfigError: It has none.
    """
    labels: Tensor | None = getattr(batch, "labels", None)
    if labels is None:
        raise ConfigError(
            "The calibration documents have no labels.",
            right="Importance by taylor, fisher and block_fisher is the gradient of a loss, which needs labels.",
            next_step="Add labels, or rank units by obs, activation or magnitude, which need none.",
        )
    return labels
