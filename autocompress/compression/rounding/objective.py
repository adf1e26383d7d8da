"""What a change of a weight costs, as a quadratic form that calibration documents are summed up in once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autocompress.compression.ranking.obs import damped


@dataclass(frozen=True)
class Objective:
    """tr(G dW H dW^T), summed over blocks of rows: what a change dW of a weight costs.

    Attributes:
        inputs: H, (1 or blocks x inputs x inputs), positive semidefinite.
        outputs: G, (blocks x rows of a block x rows of a block); ``None`` is the identity.
        regulariser: Share of AdaRound's regulariser in the loss, compared with that of other weights.
    """

    inputs: Tensor
    outputs: Tensor | None = None
    regulariser: float = 1.0

    @property
    def blocks(self) -> int:
        """Blocks of rows that differ in H or G."""
        return len(self.inputs) if self.outputs is None else len(self.outputs)

    @property
    def alive(self) -> Tensor:
        """(inputs,) bool: those that are not always 0."""
        return self.inputs.diagonal(dim1=1, dim2=2).ne(0).any(0)

    def damped(self) -> Objective:
        """Return the same with H damped by 1 % of its mean diagonal, so that it inverts, see ``obs.damped``."""
        return replace(self, inputs=torch.stack([damped(hessian) for hessian in self.inputs]))

    def of_scaled(self, scales: Tensor) -> Objective:
        """Return the same of weights that are multiplied, and inputs that are divided, by ``scales`` (inputs,)."""
        return replace(self, inputs=self.inputs / torch.outer(scales, scales).to(self.inputs))

    def float(self) -> Objective:
        """Return the same in f32."""
        return replace(self, inputs=self.inputs.float(), outputs=None if self.outputs is None else self.outputs.float())

    def slope(self, change: Tensor) -> Tensor:
        """Return G dW H for dW (rows x inputs): half the gradient."""
        inner = change.reshape(len(self.inputs), -1, change.shape[1]) @ self.inputs
        if self.outputs is not None:
            inner = self.outputs @ inner.reshape(len(self.outputs), -1, change.shape[1])
        return inner.reshape(change.shape)

    def losses(self, change: Tensor) -> Tensor:
        """Return the parts of the loss that do not depend on each other: of each row, or of each block where G is.

        Args:
            change: dW, (rows x inputs).

        Returns:
            (rows,), or (blocks,).
        """
        rows = (self.slope(change) * change).sum(1)
        return rows if self.outputs is None else rows.reshape(len(self.outputs), -1).sum(1)

    def loss(self, change: Tensor) -> Tensor:
        """Return tr(G dW H dW^T), summed over blocks, for dW (rows x inputs)."""
        return self.losses(change).sum()


def second_moment(parts: Iterable[Tensor]) -> Tensor:
    """Return H = 2 E[x x^T] over all rows: (inputs x inputs), or one for each block, float64.

    Args:
        parts: Of x, each (rows x inputs) or (blocks x rows x inputs). Products within a part are f32, sums float64.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for part in parts:
        total = total + (part.mT @ part).double()
        count += part.shape[-2]
    return 2.0 * total / count
