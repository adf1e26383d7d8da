"""Vision transformers with few bits for weights and activations, simulated in floats, by published recipes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from autocompress.compression.activations import tangent
from autocompress.compression.activations.affine import Affine, fit_channels, fit_tensor
from autocompress.compression.activations.attention_maps import AttentionMap, AttentionQuantizer
from autocompress.compression.activations.attention_quantizers import ATTENTION_QUANTIZERS
from autocompress.compression.activations.folding import reparameterize
from autocompress.compression.activations.logarithm import Logarithm, fit_log_sqrt2
from autocompress.compression.activations.mosf import SHARED
from autocompress.compression.activations.norm_sites import NormSite, norm_sites
from benchmarks.attention_probe import Operand, attentions, maps_of, operands, without_values

OUTER_BITS = 8
"""Of the patch embedding and the classifier, weights and inputs, as in RepQ-ViT's protocol."""


def published_log_sqrt2(maps: Sequence[AttentionMap], bits: int) -> Logarithm:
    """Fit log-sqrt2 as RepQ-ViT's code does: to the maps alone, and with a zero that its bits have no code for."""
    return replace(fit_log_sqrt2(without_values(maps), bits), spare_zero=True)


@dataclass(frozen=True)
class Recipe:
    """How activations are quantized; weights always by output channel, all else by tensor.

    Attributes:
        norm: Norm outputs have one scale a layer, as they are or after reparameterization with the mean or MOSF.
        attention: Fits post-softmax maps.
    """

    norm: Literal["layer", "mean", "mosf"]
    attention: Callable[[Sequence[AttentionMap], int], AttentionQuantizer]


UNIFORM, REPQ, DOPQ = "uniform", "RepQ-ViT", "DopQ-ViT"
RECIPES: Mapping[str, Recipe] = {
    UNIFORM: Recipe("layer", ATTENTION_QUANTIZERS["uniform"]),
    REPQ: Recipe("mean", published_log_sqrt2),
    DOPQ: Recipe("mosf", tangent.fit),
    "MOSF, uniform": Recipe("mosf", ATTENTION_QUANTIZERS["uniform"]),
    "MOSF, log-sqrt2": Recipe("mosf", published_log_sqrt2),
    "MOSF, AdaLog": Recipe("mosf", ATTENTION_QUANTIZERS["adalog"]),
}
"""The first three are methods (DopQ-ViT without its reconstruction), the others tell what each part does."""
EVERY = 4
"""Queries: of so many one is fitted on."""


def simulate(module: nn.Linear | nn.Conv2d, inputs: Affine, bits: int) -> None:
    """Round the weights of ``module``, by output channel, and make it round what it reads."""
    rows = module.weight.detach().flatten(1).T
    module.weight.copy_(fit_channels(rows, bits).rounded(rows).T.reshape(module.weight.shape))
    module.register_forward_pre_hook(lambda _module, read: (inputs.rounded(read[0]), *read[1:]))


@torch.no_grad()
def quantized(model: nn.Module, recipe: Recipe, images: Tensor, bits: int) -> nn.Module:
    """Return a copy of a float ``model`` with ``bits`` for weights and activations, calibrated on ``images``."""
    student = copy.deepcopy(model)
    inputs = {"pixel_values": images}
    readers: dict[nn.Module, Affine] = {}
    sites = norm_sites(student, inputs)
    outputs = _seen(student, [site.norm for site in sites], inputs, outputs=True)
    for site in sites:
        readers |= dict.fromkeys(site.readers, _norm_quantizer(site, outputs[site.norm], recipe, bits))
    probes = [partial(_probe, fitted) for fitted in _attention(student, recipe, inputs, bits)]
    mapped = [module for module in student.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    outer = {module for module in mapped if isinstance(module, nn.Conv2d) or module is student.classifier}
    read = _seen(student, [module for module in mapped if module not in readers], inputs, outputs=False)
    for module in mapped:
        width = OUTER_BITS if module in outer else bits
        simulate(module, readers[module] if module in readers else fit_tensor(read[module], width), width)
    for module, probe in zip(attentions(student), probes, strict=True):
        module.probe = probe  # type: ignore[assignment]
    return student


def _norm_quantizer(site: NormSite, output: Tensor, recipe: Recipe, bits: int) -> Affine:
    if recipe.norm == "layer":
        return fit_tensor(output, bits)
    channels = fit_channels(output, bits)
    return reparameterize(site, channels, SHARED[recipe.norm](channels))


def _attention(
    model: nn.Module, recipe: Recipe, inputs: Mapping[str, Tensor], bits: int
) -> list[dict[Operand, Affine | AttentionQuantizer]]:
    fitted = []
    for found in operands(model, [inputs]):
        layer: dict[Operand, Affine | AttentionQuantizer] = {
            "probabilities": recipe.attention(maps_of(found, every=EVERY), bits)
        }
        fitted.append(layer | {name: fit_tensor(found[name][0], bits) for name in ("query", "key", "value")})
    return fitted


def _probe(fitted: Mapping[Operand, Affine | AttentionQuantizer], name: Operand, tensor: Tensor) -> Tensor:
    return fitted[name].dequantize(fitted[name].quantize(tensor))


def _seen(
    model: nn.Module, modules: Sequence[nn.Module], inputs: Mapping[str, Tensor], *, outputs: bool
) -> dict[nn.Module, Tensor]:
    """Return what each module gives, or reads, in one pass."""
    found: dict[nn.Module, Tensor] = {}

    def hook(module: nn.Module, read: tuple[Tensor, ...], given: Tensor) -> None:
        found[module] = given if outputs else read[0]

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
