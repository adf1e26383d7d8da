"""Which tokens a masked language model has to guess: DistilBERT's dynamic masking, drawn anew for every batch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from autocompress.training.batches import TokenBatch

NOT_ASKED = -100
"""The label of a token that is not to be guessed; cross entropy leaves it out."""


@dataclass(frozen=True)
class Masking:
    """How tokens are drawn (Sanh et al. 2019, as its code has it; the exponent is that of XLM).

    Attributes:
        share: Of a batch's tokens, how many are to be guessed (0 to 1).
        smoothing: Tokens are drawn in proportion to ``count ** -smoothing``: rare ones more often.
        masked: Of those drawn, the share that the mask token takes the place of (0 to 1).
        unchanged: The share that is read as it is; what is left of 1 is read as another token.
    """

    share: float = 0.15
    smoothing: float = 0.7
    masked: float = 0.8
    unchanged: float = 0.1


@dataclass(frozen=True)
class MaskedBatch(TokenBatch):
    """Documents with tokens to guess.

    Attributes:
        labels: The token that stood there where it is to be guessed, else ``NOT_ASKED`` (documents x tokens), int64.
    """

    labels: Tensor


def rarity(counts: Tensor, special: Collection[int], settings: Masking) -> Tensor:
    """Return how readily each token is drawn (vocabulary,): max(count, 1) ** -smoothing, and 0 for special tokens.

    Args:
        counts: How often each token occurs in the text (vocabulary,).
        special: Ids that are never drawn.
        settings: Has the exponent.
    """
    weights = counts.double().clamp(min=1.0) ** -settings.smoothing
    weights[sorted(special)] = 0.0
    return weights


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    weights: Tensor,
    *,
    mask_id: int,
    settings: Masking,
    generator: torch.Generator,
) -> MaskedBatch:
    """Draw ceil(share * tokens) positions without replacement, in proportion to the weights of their tokens.

    Tokens are counted over the whole batch, special ones too, as the original does; where fewer can be drawn, all are.
    The original also reads special tokens in the place of others. This does not: position embeddings of RoBERTa are
    counted by padding tokens.

    Args:
        input_ids: (documents x tokens) int64.
        attention_mask: 1 for tokens, 0 for padding (documents x tokens).
        weights: How readily each token is drawn (vocabulary,), see ``rarity``.
        mask_id: Of the mask token.
        settings: How many are drawn, and what is read in their place.
        generator: All that is random.
    """
    likely = weights[input_ids] * attention_mask
    count = min(ceil(settings.share * int(attention_mask.sum())), int((likely > 0).sum()))
    read, labels = input_ids.clone(), torch.full_like(input_ids, NOT_ASKED)
    if count == 0:
        return MaskedBatch(read, attention_mask, labels)
    places = torch.multinomial(likely.flatten(), count, generator=generator)
    labels.view(-1)[places] = input_ids.flatten()[places]
    shares = torch.tensor([settings.masked, settings.unchanged, 1 - settings.masked - settings.unchanged])
    fate = torch.multinomial(shares.clamp(min=0.0), count, replacement=True, generator=generator)
    other = torch.multinomial((weights > 0).double(), count, replacement=True, generator=generator)
    shown = torch.stack([torch.full((count,), mask_id), input_ids.flatten()[places], other])
    read.view(-1)[places] = shown[fate, torch.arange(count)]
    return MaskedBatch(read, attention_mask, labels)
