"""The tensors of modules, as ``compiler.graph.weight_specs`` names and lays them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.models.quantized import QuantizedLinear, quantizer_of
from autocompress.shape import Bits


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
