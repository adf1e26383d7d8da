"""Documents of several lengths, without labels."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unlabelled:
    input_ids: Tensor
    attention_mask: Tensor


def padded(count: int = 4, seed: int = 0) -> Unlabelled:
    """Return a batch whose documents have 3 tokens and more, padded to the longest."""
    ids = torch.randint(5, 40, (count, 2 + count), generator=torch.Generator().manual_seed(seed))
    return Unlabelled(ids, (torch.arange(2 + count)[None] < torch.arange(3, 3 + count)[:, None]).long())
