"""aespa: query, key and value weights are rounded for the sake of what attention gives, not each for its own output.

Source: aespa (Kim et al., NeurIPS 2024): the value loss is exact; query and key losses stand after a first-order Taylor
expansion of the softmax and the split E[x x^T (x) k k^T] = E[x x^T] (x) E[k k^T]. Z-Fold, which the paper adds, folds
factors of columns into what stands before a linear (``zfold``). In a post-norm layer the norm also feeds the residual
stream, so nothing folds into it: students are rounded without, decoders with or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.rounding.objective import Objective, second_moment

REGULARISER = 1.5
"""Of query, key and value weights, compared with 1 of all others."""


@dataclass(frozen=True)
class AttentionObjectives:
    """What a change of the query, key and value weights costs the output of attention."""

    query: Objective
    key: Objective
    value: Objective


def attention_objectives(
    inputs: Sequence[tuple[Tensor, Tensor]], query: nn.Module, key: nn.Module, *, head_width: int
) -> AttentionObjectives:
    """Return, head by head, the losses of query, key and value weights; padding counts neither as query nor as key.

    * Value: |dW_V X A^T|^2, exact: tr(dW_V E[X A^T A X^T] dW_V^T).
    * Query: |K dW_Q X|^2 for each document, by independent means: tr(E[k k^T] dW_Q E[x x^T] dW_Q^T).
    * Key: the same with the two exchanged.

    Args:
        inputs: What the three linears read (documents x tokens x channels), and which tokens are no padding.
        query: Linear with floats: keys are rounded for the queries that it gives.
        key: The same for queries.
        head_width: Channels of one head.
    """
    plain = second_moment(x[real] for x, real in inputs)
    queries, keys = (
        second_moment(_heads(linear(x), head_width)[:, real] for x, real in inputs) for linear in (query, key)
    )
    mixed = second_moment(_mixed(x, real, query, key, head_width) for x, real in inputs)
    return AttentionObjectives(
        query=Objective(plain[None], keys / 2.0, REGULARISER),
        key=Objective(plain[None], queries / 2.0, REGULARISER),
        value=Objective(mixed, regulariser=REGULARISER),
    )


def attention(x: Tensor, real: Tensor, query: nn.Module, key: nn.Module, *, head_width: int) -> Tensor:
    """Return the attention probabilities (heads x documents x queries x keys); padding receives none.

    Args:
        x: What the linears read (documents x tokens x channels).
        real: Which tokens are no padding (documents x tokens).
        query: Linear.
        key: Linear.
        head_width: Channels of one head.
    """
    scores: Tensor = _heads(query(x), head_width) @ _heads(key(x), head_width).mT * head_width**-0.5
    return scores.masked_fill(~real[:, None, :], -torch.inf).softmax(-1)


def _heads(values: Tensor, width: int) -> Tensor:
    """Cut (documents x tokens x channels) into (heads x documents x tokens x ``width``)."""
    return values.reshape(*values.shape[:2], -1, width).permute(2, 0, 1, 3)


def _mixed(x: Tensor, real: Tensor, query: nn.Module, key: nn.Module, head_width: int) -> Tensor:
    """Return rows of A X for the real tokens, (heads x tokens x channels)."""
    return (attention(x, real, query, key, head_width=head_width) @ x)[:, real]
