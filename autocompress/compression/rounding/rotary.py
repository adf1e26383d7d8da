"""aespa's objectives in a decoder: rotary positions, a causal mask, query heads that share keys and values.

Source: aespa (Kim et al., NeurIPS 2024), see ``aespa``. As in its authors' code, query heads of a group are averaged,
and so are second moments over positions, each turned back by its own. Leaving out what the mask hides is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autocompress.compression.rounding.aespa import REGULARISER, AttentionObjectives
from autocompress.compression.rounding.objective import Objective, second_moment


@dataclass(frozen=True)
class RotaryAttention:
    """What attention reads of documents of one length, without padding.

    Attributes:
        inputs: x, (documents x tokens x channels).
        queries: W_Q x before rotation, (documents x key heads x query heads that share each x tokens x width).
        keys: W_K x before rotation, (documents x key heads x 1 x tokens x width).
        cosines, sines: Of the rotation R_t, (tokens x width), for channels that are paired half a width apart.
    """

    inputs: Tensor
    queries: Tensor
    keys: Tensor
    cosines: Tensor
    sines: Tensor

    def turned(self, values: Tensor) -> Tensor:
        """Return R_t v_t for v (... x tokens x width)."""
        return values * self.cosines + _half_turned(values) * self.sines

    def probabilities(self) -> Tensor:
        """Return A, (documents x key heads x query heads of each x tokens x tokens that they see)."""
        scores: Tensor = self.turned(self.queries) @ self.turned(self.keys).mT * self.keys.shape[-1] ** -0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(hidden, -torch.inf).softmax(-1)

    def mixed(self) -> Iterator[Tensor]:
        """Yield rows of A X, a document at a time: (key heads x (query heads of each * tokens) x channels)."""
        for document in range(len(self.inputs)):
            one = slice(document, document + 1)
            own = replace(self, inputs=self.inputs[one], queries=self.queries[one], keys=self.keys[one])
            yield (own.probabilities()[0] @ own.inputs[0]).flatten(1, 2)

    def keys_seen(self) -> Tensor:
        """Return E[r r^T] with r = R_t^T R_s k_s over tokens t and those s <= t that they see.

        Returns:
            (key heads x width x width), float64.
        """
        return self._turned_back(self._moments(self.keys).cumsum(1))

    def queries_seeing(self) -> Tensor:
        """Return E[r r^T] with r = R_s^T R_t q_t over tokens s, those t >= s that see them, and heads of a group.

        Returns:
            (key heads x width x width), float64.
        """
        return self._turned_back(self._moments(self.queries).flip(1).cumsum(1).flip(1))

    def _moments(self, values: Tensor) -> Tensor:
        """Return E[v v^T] of v turned, over documents and heads of a group (key heads x tokens x width x width)."""
        turned = self.turned(values)
        return torch.einsum("dhmta,dhmtb->htab", turned, turned) / (len(values) * values.shape[2])

    def _turned_back(self, moments: Tensor) -> Tensor:
        """Return the sum of R_t^T C_t R_t by visible pairs, for C (key heads x tokens x width x width)."""
        for _side in range(2):
            moments = (moments * self.cosines[:, None] - _half_turned(moments) * self.sines[:, None]).mT
        tokens = moments.shape[1]
        return moments.double().sum(1) / (tokens * (tokens + 1) / 2)


def rotary_objectives(attention: RotaryAttention) -> AttentionObjectives:
    """Return, head by head, the losses of query, key and value weights.

    * Value, of a head that several query heads read: |A X dW_V^T|^2, exact, in the mean over these.
    * Query: the score of token t for s changes by (R_t dW_Q x_t) . (R_s k_s) = r^T dW_Q x_t with r = R_t^T R_s k_s, in
      which only their distance turns. Squares count where s <= t, as no other score reaches the softmax. Up to here
      this is exact. Then x_t and the moment of what it sees are taken to be independent: tr(E[r r^T] dW_Q E[x x^T]
      dW_Q^T), exact where all x_t x_t^T are equal.
    * Key: the same with r = R_s^T R_t q_t, over all query heads that read the key head.

    As in ``aespa``, query and key losses leave out how much a score moves the softmax, and that the output.

    Args:
        attention: With queries and keys of floats.
    """
    members = attention.queries.shape[2]
    plain = second_moment(x for x in attention.inputs)
    return AttentionObjectives(
        query=Objective(plain[None], attention.keys_seen().repeat_interleave(members, 0), REGULARISER),
        key=Objective(plain[None], attention.queries_seeing(), REGULARISER),
        value=Objective(second_moment(attention.mixed()), regulariser=REGULARISER),
    )


def _half_turned(values: Tensor) -> Tensor:
    """Return (-b, a) for the halves (a, b) of the last dimension."""
    first, second = values.chunk(2, -1)
    return torch.cat([-second, first], -1)
