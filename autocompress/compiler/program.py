"""An encoder as the list of kernels that run it: plain values, from which the library is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from autocompress.compiler.dots import Dot
from autocompress.compiler.graph import Array, Weights


@dataclass(frozen=True)
class Tensor:
    """A named array of fixed dimensions; ``dtype`` is a name that numpy knows."""

    name: str
    dimensions: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return prod(self.dimensions) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Constant:
    """A tensor that is made from the weights once, in the layout of the kernels that read it."""

    tensor: Tensor
    pack: Callable[[Weights], Array]


@dataclass(frozen=True)
class Kernel:
    """One piece of code: its family (``relax_graph.FAMILIES``) and all values that its loops are written from."""

    family: str
    size: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, family: str, **size: Any) -> Kernel:
        """Return the kernel of ``family`` with these values."""
        return cls(family, tuple(sorted(size.items())))

    def __str__(self) -> str:
        """Name every value, e.g. ``norm(epsilon=1e-12, lanes=16, ...)``: a key for logs and manifests."""
        return f"{self.family}({', '.join(f'{name}={_text(value)}' for name, value in self.size)})"


def _text(value: Any) -> str:
    """Return a number as it is, a dot product by its name and lanes, and a tile as rows x columns (+: reads ahead)."""
    return f"{value.name}{value.lanes}" if isinstance(value, Dot) else str(value)


@dataclass(frozen=True)
class Call:
    """A kernel at work on tensors."""

    kernel: Kernel
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Program:
    """Calls in the order in which they run.

    Attributes:
        inputs: Token ids and attention mask, both (batch x tokens) int64; or the pixels of images.
        constants: What is stored beside the code.
        calls: Every value is written by one call, before others read it.
        output: The logits (batch x classes).
    """

    inputs: tuple[Tensor, ...]
    constants: tuple[Constant, ...]
    calls: tuple[Call, ...]
    output: Tensor

    def names(self) -> dict[Kernel, str]:
        """Return the kernels that differ, in the order of their first call, with a short name for each."""
        kernels = dict.fromkeys(call.kernel for call in self.calls)
        return {kernel: f"{kernel.family}_{index}" for index, kernel in enumerate(kernels)}

    def tiles(self) -> dict[str, str]:
        """Return the tile of every matrix product that differs, as family, rows x columns x depth -> rows x columns."""
        sizes = [(kernel.family, dict(kernel.size)) for kernel in self.names()]
        return {
            f"{family} {size['rows']} x {size['columns']} x {size['depth']}": str(size["tile"])
            for family, size in sizes
            if "tile" in size
        }
