"""A token table of low rank: narrow rows that a linear map expands to the embedding width."""

from __future__ import annotations

from torch import Tensor, nn


class FactorizedEmbedding(nn.Module):
    """Row ``v`` is ``table[v] @ expand.weight.T + expand.bias``.

    Args:
        table: ``nn.Embedding`` or ``QuantizedEmbedding`` of (vocabulary x rank) values.
        expand: From rank to the embedding width.
    """

    def __init__(self, table: nn.Module, expand: nn.Linear) -> None:
        super().__init__()
        self.table, self.expand = table, expand
        self.embedding_dim = expand.out_features

    def forward(self, ids: Tensor) -> Tensor:
        """Look up (batch x tokens) ids: (batch x tokens x channels)."""
        rows: Tensor = self.expand(self.table(ids))
        return rows
