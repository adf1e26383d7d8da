"""Post-softmax maps, and what a quantizer of them offers and is judged by.

Quantizers here simulate: codes become floats again before anything is multiplied. No engine has a kernel for them, so
they tell what bits cost in accuracy and nothing about speed. At 8 bits and more, plain uniform levels do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from autocompress.errors import ConfigError

RANGES = (1.0, 0.99999, 0.9999, 0.999)
"""Quantiles of a map's entries that are tried as the largest value of its quantizer."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Attention probabilities of calibration data, and what they are multiplied with.

    Attributes:
        probabilities: A, (... x queries x keys), 0 to 1. Rows of padding are noise and move what is fitted: leave
            them out.
        values: V, (... x keys x width), or ``None`` where it is not at hand.
    """

    probabilities: Tensor
    values: Tensor | None = None

    def norm(self, change: Tensor) -> float:
        """Return |change V|^2, or |change|^2 without values; ``change`` has the shape of the probabilities."""
        return float((change if self.values is None else change @ self.values).square().sum())


class AttentionQuantizer(Protocol):
    """A quantizer of post-softmax maps with frozen parameters.

    Attributes:
        simulated: Always true so far: no engine multiplies its codes.
    """

    simulated: ClassVar[bool]

    @property
    def bits(self) -> int:
        """Width of a code."""

    def quantize(self, x: Tensor) -> Tensor:
        """Return the integer codes of probabilities of any shape."""

    def dequantize(self, codes: Tensor) -> Tensor:
        """Return the floats that the codes stand for."""


Q = TypeVar("Q", bound=AttentionQuantizer)


def squared_error(quantizer: AttentionQuantizer, maps: Iterable[AttentionMap]) -> float:
    """Return the sum over maps of |(A_hat - A) V|^2, or of |A_hat - A|^2 where V is not at hand."""
    return sum(
        each.norm(quantizer.dequantize(quantizer.quantize(each.probabilities)) - each.probabilities) for each in maps
    )


@torch.no_grad()
def least_error(candidates: Iterable[Q], maps: Sequence[AttentionMap]) -> Q:
    """Return the candidate of the least ``squared_error``, the first of several."""
    return min(candidates, key=lambda candidate: squared_error(candidate, maps))


def tops(maps: Sequence[AttentionMap]) -> tuple[float, ...]:
    """Return the largest values to try: ``RANGES`` of all entries, without those that are 0 or occur twice.

    Raises:
        ConfigError: There are no maps, all entries are 0, or one is outside 0 to 1.
    """
    entries = np.concatenate([each.probabilities.detach().flatten().numpy() for each in maps] or [np.zeros(0)])
    if not entries.size or not entries.max() > 0 or entries.min() < 0 or entries.max() > 1 + 1e-5:
        raise ConfigError(
            f"{len(maps)} maps were given, with entries that are no probabilities.",
            right="Quantizers of attention are fitted on post-softmax maps, 0 to 1 and not all 0.",
            next_step="Give the probabilities that softmax returns, of a few dozen calibration inputs.",
        )
    found = np.quantile(entries, RANGES).tolist()
    return tuple(value for value in dict.fromkeys(found) if value > 0)
