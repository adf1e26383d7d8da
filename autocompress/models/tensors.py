"""What modules are made of: their sizes, and tensors as ``compiler.graph.weight_specs`` names and lays them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.models.adapter import LayerModules
from autocompress.models.quantized import QuantizedLinear, quantizer_of
from autocompress.shape import WEIGHT_GROUP, Bits, LayerShape


def tensor(module: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer, detached."""
    found = getattr(module, name)
    assert isinstance(found, Tensor)
    return found.detach()


def array(values: Tensor) -> npt.NDArray[np.generic]:
    """Return the same as a contiguous array; bfloat16 as f32."""
    plain = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no bfloat16; f32 holds its values.
    return np.ascontiguousarray(plain.numpy())


def bits_of(linear: nn.Module) -> Bits:
    """Return the bits of a linear's weights."""
    return linear.bits if isinstance(linear, QuantizedLinear) else 32


def norm_tensors(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Return weight and bias of a norm."""
    return {f"{name}.weight": tensor(module, "weight"), f"{name}.bias": tensor(module, "bias")}


def linear_tensors(modules: Sequence[nn.Module], name: str) -> dict[str, Tensor]:
    """Return linears that share their input as one, outputs side by side, weights as (inputs x outputs)."""

    def joined(part: str) -> Tensor:
        return torch.cat([tensor(module, part) for module in modules])

    found = {f"{name}.weight": joined("weight").T, f"{name}.bias": joined("bias")}
    if bits_of(modules[0]) < 16:
        scale = joined("scale")
        found[f"{name}.scale"] = scale.T if scale.dim() == 2 else scale
    if getattr(modules[0], "zero_points", None) is not None:
        found[f"{name}.zero_points"] = joined("zero_points").T
    if quantizer := quantizer_of(modules[0]):
        found |= {f"{name}.{part}": values for part, values in quantizer.named_buffers()}
    return found


def layer_tensors(layer: LayerModules, name: str) -> dict[str, Tensor]:
    """Return all that a layer stores."""
    found = linear_tensors([layer.get(path) for path in (layer.query, layer.key, layer.value)], f"{name}.qkv")
    found |= linear_tensors([layer.get(layer.output)], f"{name}.output")
    found |= norm_tensors(layer.get(layer.attention_norm), f"{name}.attention_norm")
    found |= linear_tensors([layer.get(layer.ffn_in)], f"{name}.ffn_in")
    found |= linear_tensors([layer.get(layer.ffn_out)], f"{name}.ffn_out")
    return found | norm_tensors(layer.get(layer.ffn_norm), f"{name}.ffn_norm")


def count(module: nn.Module, attribute: str) -> int:
    """Return a size of a module."""
    return int(getattr(module, attribute))


def epsilon_of(norm: nn.Module) -> float:
    """Return what a norm adds to the variance."""
    return float(norm.eps)  # type: ignore[arg-type]


def layer_shape(layer: LayerModules, most_tokens: int = 0) -> LayerShape:
    """Return what a layer is, without its weights."""
    linears = [layer.get(path) for path in (layer.query, layer.output, layer.ffn_in, layer.ffn_out)]
    rounded = [each for each in linears if isinstance(each, QuantizedLinear)]
    grids = [module.grid for module in rounded if module.grid]
    found = LayerShape(
        heads=count(linears[0], "out_features") // layer.head_width,
        head_width=layer.head_width,
        ffn=count(linears[2], "out_features"),
        most_tokens=most_tokens,
        activations=next((each.activations for each in rounded if each.activations != "dynamic"), "dynamic"),
        weight_group=grids[0].group if grids else WEIGHT_GROUP,
        zero_points=any(grid.zero_points for grid in grids),
    )
    return found.with_bits(*map(bits_of, linears))
