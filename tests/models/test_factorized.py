import torch
from torch import nn

from autocompress.models.factorized import FactorizedEmbedding


def test_a_row_is_the_narrow_row_expanded():
    word = FactorizedEmbedding(nn.Embedding(6, 2), nn.Linear(2, 5))
    ids = torch.tensor([[1, 4, 4], [0, 5, 2]])
    with torch.no_grad():
        expected = word.table.weight[ids] @ word.expand.weight.T + word.expand.bias
        torch.testing.assert_close(word(ids), expected)
    assert word.embedding_dim == 5


def test_both_factors_are_trained():
    word = FactorizedEmbedding(nn.Embedding(6, 2), nn.Linear(2, 5))
    word(torch.tensor([[1, 2]])).sum().backward()
    assert all(parameter.grad is not None for parameter in word.parameters())
