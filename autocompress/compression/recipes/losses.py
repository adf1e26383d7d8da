"""Losses between a student and its teacher: pure functions, 0 where both give the same unless they say otherwise.

Token by token they are means over what is no padding: ``mask`` is (documents x tokens), 1 for tokens. Official code
averages over padding as well, so that a loss there shrinks as a batch's longest document grows.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(z_T / T) || softmax(z_S / T)), the mean over rows, in nats.

    Hinton et al. 2015, section 2: T squared keeps gradients' size independent of T.

    Args:
        student: Logits (rows x classes).
        teacher: Likewise.
        temperature: T (> 0).
    """
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, -1),
        functional.log_softmax(teacher / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * soft


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Return -softmax(z_T) . log_softmax(z_S), the mean over documents and classes; at best the teacher's entropy.

    TinyBERT (Jiao et al. 2020, equation 10, t = 1); its official code divides by the classes too.

    Args:
        student: Logits (documents x classes).
        teacher: Likewise.
    """
    return -(functional.softmax(teacher, -1) * functional.log_softmax(student, -1)).mean()


def token_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error of features (documents x tokens x channels); TinyBERT, equations 8 and 9."""
    return _over_tokens((student - teacher).square().mean(-1), mask)


def cosine_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of 1 - cos between features (documents x tokens x channels); DistilBERT (Sanh et al. 2019)."""
    return _over_tokens(1 - functional.cosine_similarity(student, teacher, dim=-1), mask)


def attention_scores(query: Tensor, key: Tensor, head_width: int) -> Tensor:
    """Return Q K^T / sqrt(head width) before the softmax (documents x heads x tokens x tokens)."""
    q, k = (_heads(each, each.shape[-1] // head_width) for each in (query, key))
    return q @ k.transpose(-1, -2) / sqrt(head_width)


def score_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error of attention scores over heads and pairs of tokens; TinyBERT, equation 7.

    Where heads were pruned, scores are compared in the mean over heads: TinyBERT needs as many on both sides.

    Args:
        student: Scores (documents x heads x tokens x tokens).
        teacher: Likewise, of as many heads or others.
        mask: See above.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    pairs = (mask[:, :, None] * mask[:, None, :]).to(student.dtype)
    return ((student - teacher).square().mean(1) * pairs).sum() / pairs.sum()


def relation_heads(student: int, teacher: int, most: int) -> int:
    """Return into how many relation heads both widths (channels) can be cut, at most ``most``."""
    return max(heads for heads in range(1, most + 1) if student % heads == 0 and teacher % heads == 0)


def relation_divergence(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return the KL divergence of relations between tokens, softmax(A A^T / sqrt(width of a head)), in nats.

    MINILMv2 (Wang et al. 2021, equations 5 to 7): A are queries, keys or values, cut into as many relation heads on
    both sides, whatever heads these have. The mean over documents' tokens and heads.

    Args:
        student: (documents x tokens x channels), widths may differ.
        teacher: Likewise.
        mask: See above.
        heads: Divides both widths.
    """
    ours, theirs = (_relations(each, each, mask, heads) for each in (student, teacher))
    return _divergence(ours, theirs, mask)


def attention_divergence(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int
) -> Tensor:
    """Return the KL divergence of attention maps, the mean over documents' tokens and heads, in nats.

    MiniLM (Wang et al. 2020, equation 4). Heads may be cut otherwise than the models cut them, as relations' are.

    Args:
        student: Queries and keys (documents x tokens x channels).
        teacher: Likewise.
        mask: See above.
        heads: Divides both widths.
    """
    ours, theirs = (_relations(*each, mask, heads) for each in (student, teacher))
    return _divergence(ours, theirs, mask)


def match_layers(distances: Tensor) -> tuple[int, ...]:
    """Return for each of the teacher's layers the student's layer that learns it: in order, with the least sum.

    CoFi (Xia et al. 2022, section 3.2) takes the nearest layers of the student and keeps their order; how is not
    written down there. Here the sum is the least of all monotone choices, several of which may name one layer.

    Args:
        distances: (teacher's layers x student's layers).
    """
    costs, choices = distances[0], []
    for row in distances[1:]:
        least, place = torch.cummin(costs, 0)
        choices.append(place)
        costs = row + least
    last = [int(costs.argmin())]
    for place in reversed(choices):
        last.append(int(place[last[-1]]))
    return tuple(reversed(last))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def _relations(left: Tensor, right: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return log softmax(L R^T / sqrt(width)) (documents x heads x tokens x tokens), padding never looked at."""
    scores = _heads(left, heads) @ _heads(right, heads).transpose(-1, -2) / sqrt(left.shape[-1] // heads)
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min).log_softmax(-1)


def _divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    rows = (teacher.exp() * (teacher - student)).sum(-1).mean(1)
    return _over_tokens(rows, mask)


def _over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    real = mask.to(values.dtype)
    return (values * real).sum() / real.sum()
