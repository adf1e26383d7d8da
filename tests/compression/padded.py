"""Documents of several lengths, without labels."""

import torch

from autocompress.training.batches import TokenBatch


def padded(count: int = 4, seed: int = 0) -> TokenBatch:
    """Return a batch whose documents have 3 tokens and more, padded to the longest."""
    ids = torch.randint(5, 40, (count, 2 + count), generator=torch.Generator().manual_seed(seed))
    return TokenBatch(ids, (torch.arange(2 + count)[None] < torch.arange(3, 3 + count)[:, None]).long())
