"""Attention in which every operand can be looked at or replaced, for any transformers model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from autocompress.compression.activations.attention_maps import AttentionMap

PROBED = "probed"
Operand = Literal["query", "key", "value", "probabilities"]
OPERANDS: tuple[Operand, ...] = ("query", "key", "value", "probabilities")
Probe = Callable[[Operand, Tensor], Tensor]
"""(which operand, its value) to the value that is used."""


def probed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **_others: Any,
) -> tuple[Tensor, Tensor]:
    """Return softmax(Q K^T scaling) V as transformers asks for it; ``module.probe`` sees each operand first."""
    probe: Probe = getattr(module, "probe", lambda _name, tensor: tensor)
    query, key, value = probe("query", query), probe("key", key), probe("value", value)
    logits = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    probabilities = probe("probabilities", logits.softmax(-1))
    return (probabilities @ value).transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(PROBED, probed_attention)


def attentions(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose operands are probed, first to last, and make the model use ``probed_attention``."""
    model.set_attn_implementation(PROBED)  # type: ignore[operator]
    return [module for module in model.modules() if hasattr(module, "scaling")]


@torch.no_grad()
def operands(model: nn.Module, inputs: Iterable[Mapping[str, Tensor]]) -> list[dict[Operand, list[Tensor]]]:
    """Return, layer by layer, the operands of each input: keyword arguments of a pass, none padded."""
    modules = attentions(model)
    found: list[dict[Operand, list[Tensor]]] = [{name: [] for name in OPERANDS} for _ in modules]

    def keep(layer: int) -> Probe:
        def probe(name: Operand, tensor: Tensor) -> Tensor:
            found[layer][name].append(tensor)
            return tensor

        return probe

    for layer, module in enumerate(modules):
        module.probe = keep(layer)  # type: ignore[assignment]
    try:
        for each in inputs:
            model(**each)
    finally:
        for module in modules:
            del module.probe
    return found


def maps_of(found: Mapping[Operand, list[Tensor]], *, every: int = 1) -> list[AttentionMap]:
    """Return one layer's probabilities and values, of every so many queries: each adds its own part to an error."""
    pairs = zip(found["probabilities"], found["value"], strict=True)
    return [AttentionMap(probabilities[..., ::every, :], value) for probabilities, value in pairs]


def without_values(maps: Sequence[AttentionMap]) -> list[AttentionMap]:
    """Return the same maps, for errors of the probabilities themselves."""
    return [AttentionMap(each.probabilities) for each in maps]
