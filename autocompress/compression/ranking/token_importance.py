"""How much each token of a vocabulary matters: the attention that it receives.

Source: "hard token pruning" of EI-BERT (Wang et al., KDD 2025, arXiv 2507.04636), which ranks a vocabulary's entries by
multi-head attention, aggregated over layers, heads and sentences. The formula here is a reconstruction: the paper's
text was not available, only its abstract and an article by its authors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.models.load import adapter_of
from autocompress.training.batches import TokenBatch


@torch.no_grad()
def attention_received(model: nn.Module, batches: Iterable[TokenBatch], *, not_from: Collection[int] = ()) -> Tensor:
    """Return what each token id receives of attention (vocabulary,), in float64.

    I(v) = sum over sentences, layers and heads of sum over {j: x_j = v} of sum over i of A_ij, with A the attention
    probabilities of query i on key j. Padding neither attends nor is attended to.

    Args:
        model: In eval mode.
        batches: Documents.
        not_from: Ids whose attention does not count, such as the special tokens': much of theirs rests on punctuation.
    """
    received = torch.zeros(adapter_of(model).shape(model).vocabulary, dtype=torch.float64)
    skipped = torch.tensor(sorted(not_from), dtype=torch.int64)
    with _eager_attention(model):
        for batch in batches:
            output: Any = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_attentions=True)
            asking = batch.attention_mask.bool() & ~torch.isin(batch.input_ids, skipped)
            for attention in output.attentions:
                each = torch.einsum("bhij,bi->bj", attention.double(), asking.double()) * batch.attention_mask
                received.index_add_(0, batch.input_ids.flatten(), each.flatten())
    return received


def extrapolate(received: Tensor, sampled: Tensor, counts: Tensor) -> Tensor:
    """Return about what each token would receive in all documents (vocabulary,), from what it did in some.

    It is what an occurrence of the token received on average, times its occurrences; of a token that was not among the
    sampled documents what an occurrence of any token received. With all documents sampled it is ``received``.

    Args:
        received: In the sampled documents (vocabulary,).
        sampled: Occurrences there (vocabulary,).
        counts: Occurrences in all documents (vocabulary,).
    """
    mean = received.sum() / sampled.sum()
    return counts * torch.where(sampled > 0, received / sampled.clamp(min=1), mean)


@contextmanager
def _eager_attention(model: Any) -> Iterator[None]:
    """Let ``model`` compute attention in the way that can return its probabilities."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
