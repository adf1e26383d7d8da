"""Embedding factorisation: the token table becomes a narrow table and one linear map that expands its rows.

ALBERT (Lan et al., ICLR 2020, section 3.1) trains such a table from scratch; here the trained one is approximated.
E_v ~ A_v B + c, with A (vocabulary x rank), B (rank x width) and the bias c of the map, minimises
sum over v of f_v |E_v - A_v B - c|^2, f_v being one more than how often token v occurs in the training documents. With
c the mean of the rows weighted by f, B are the first eigenvectors of sum over v of f_v (E_v - c)(E_v - c)^T and A_v is
(E_v - c) B^T: the rows scaled by the root of f_v make it the truncated singular value decomposition (Eckart and Young
1936), which weights of whole rows leave exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.adapter import refuse_of_images
from autocompress.models.factorized import FactorizedEmbedding
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class FactorizeStep:
    """Keep ``rank`` channels of each token's row.

    Attributes:
        rank: 0 leaves the table as it is.
        by_frequency: Whether tokens count by how often they occur; else every row counts the same.
    """

    method: ClassVar[str] = "factorize"
    rank: int
    by_frequency: bool = True


STEP = FactorizeStep


class Factors(NamedTuple):
    """Rows (vocabulary x rank), the map (rank x width) and its bias (width,)."""

    rows: Tensor
    expand: Tensor
    bias: Tensor


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> FactorizeStep:
    """Choose the rank; a table that is no wider, as it may be in a narrow student, is left whole."""
    if shape.pixels is not None:
        return FactorizeStep(0)
    rank = trial.suggest_categorical("embedding_rank", space.embedding_rank)
    return FactorizeStep(rank if rank < shape.embedding else 0)


def reshape(shape: ModelShape, step: FactorizeStep) -> ModelShape:
    """Return ``shape`` with so narrow a table.

    Raises:
        ConfigError: The rank is not below the width of the embeddings.
        UnsupportedError: The table has a rank already, or the model reads images and has none.
    """
    if step.rank == 0:
        return shape
    if shape.pixels is not None:
        refuse_of_images(f"a token table of rank {step.rank}")
    if not 0 < step.rank < shape.embedding:
        raise ConfigError(
            f"A token table of rank {step.rank} is asked for.",
            right=f"The embeddings are {shape.embedding} wide; a rank is below that, and 0 leaves the table whole.",
            next_step="Correct search.space.embedding_rank, or rank in the plan's factorize step.",
        )
    if shape.embedding_rank:
        raise UnsupportedError(
            f"The token table has the rank {shape.embedding_rank} already.",
            right="A whole table can be factorised, once.",
            next_step="Leave one factorize step in the plan.",
        )
    return replace(shape, embedding_rank=step.rank)


def apply(model: nn.Module, step: FactorizeStep, context: Context) -> nn.Module:
    """Replace the token table by its factors.

    Raises:
        ConfigError, UnsupportedError: As ``reshape``; or the table is quantized.
    """
    adapter = adapter_of(model)
    before = adapter.shape(model)
    if reshape(before, step) == before:
        return model
    table = adapter.token_embedding(model)
    if not isinstance(table, nn.Embedding):
        raise UnsupportedError(
            f"The token table has {before.embedding_bits} bits.",
            right="A table of floats can be factorised.",
            next_step="Put quantize after factorize in the plan.",
        )
    counts = context.token_counts(before.vocabulary) + 1.0 if step.by_frequency else torch.ones(before.vocabulary)
    factors = factorize(table.weight.detach(), step.rank, counts)
    narrow = nn.Embedding(before.vocabulary, step.rank, padding_idx=table.padding_idx)
    expand = nn.Linear(step.rank, before.embedding)
    with torch.no_grad():
        narrow.weight.copy_(factors.rows)
        expand.weight.copy_(factors.expand.T)
        expand.bias.copy_(factors.bias)
    adapter.replace_token_embedding(model, FactorizedEmbedding(narrow, expand).train(model.training))
    return model


def factorize(table: Tensor, rank: int, weights: Tensor) -> Factors:
    """Return the factors of least weighted squared error; see the module.

    Args:
        table: (vocabulary x width).
        rank: Below the width.
        weights: How much each row counts (vocabulary,), above 0.
    """
    rows, share = table.double(), weights.double() / weights.double().sum()
    bias = share @ rows
    centred = rows - bias
    _, vectors = torch.linalg.eigh(centred.T @ (share[:, None] * centred))  # Ascending.
    basis = vectors[:, -rank:].flip(1)
    return Factors((centred @ basis).to(table.dtype), basis.T.to(table.dtype), bias.to(table.dtype))
