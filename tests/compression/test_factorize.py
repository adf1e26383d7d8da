from dataclasses import replace

import numpy as np
import pytest
import torch

from autocompress.compiler.graph import weight_specs
from autocompress.compression import factorize, quantization
from autocompress.compression.factorize import FactorizeStep
from autocompress.compression.factorize import factorize as factors_of
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.factorized import FactorizedEmbedding
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedEmbedding
from autocompress.shape import by_block
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((40, 12)) * RNG.uniform(0.2, 2.0, 12) + 1.0
COUNTS = RNG.zipf(1.5, 40).astype(float)


def error(table, factors, weights):
    rows, expand, bias = (factor.double().numpy() for factor in factors)
    return float((weights * np.square(table - rows @ expand - bias).sum(1)).sum())


def logits(model):
    with torch.no_grad():
        batch = batches(1)[0]
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


@pytest.mark.parametrize("weights", [np.ones(40), COUNTS], ids=["plain", "by frequency"])
@pytest.mark.parametrize("rank", [1, 5, 11])
def test_the_error_is_that_of_the_truncated_singular_values(rank, weights):
    """Eckart and Young: what is lost are the squares of the singular values that are left out."""
    mean = weights @ TABLE / weights.sum()
    singular = np.linalg.svd(np.sqrt(weights)[:, None] * (TABLE - mean), compute_uv=False)
    factors = factors_of(torch.tensor(TABLE), rank, torch.tensor(weights))
    assert error(TABLE, factors, weights) == pytest.approx(float(np.square(singular[rank:]).sum()), rel=1e-9)


def test_frequent_tokens_are_nearer_where_frequency_counts():
    plain, weighted = (factors_of(torch.tensor(TABLE), 4, torch.tensor(w)) for w in (np.ones(40), COUNTS))
    assert error(TABLE, weighted, COUNTS) < error(TABLE, plain, COUNTS)
    assert error(TABLE, plain, np.ones(40)) < error(TABLE, weighted, np.ones(40))


def test_a_table_of_low_rank_is_factorised_without_loss(model):
    table = adapter_of(model).token_embedding(model)
    with torch.no_grad():
        table.weight.copy_(torch.randn(60, 5) @ torch.randn(5, table.embedding_dim) + torch.randn(table.embedding_dim))
    before = logits(model)
    factorize.apply(model, FactorizeStep(5), context_for(model))
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)


def test_the_factors_are_the_weights_that_the_graph_asks_for(model):
    adapter, before = adapter_of(model), adapter_of(model).shape(model)
    factorize.apply(model, FactorizeStep(7), context_for(model))
    shape = adapter.shape(model)
    assert shape == replace(before, embedding_rank=7)
    specs, weights = weight_specs(shape), adapter.weights(model)
    assert {name: spec.dimensions for name, spec in specs.items()} == {name: x.shape for name, x in weights.items()}
    saved = sum(spec.size_bytes for spec in weight_specs(before).values()) - sum(x.nbytes for x in weights.values())
    assert saved == 4 * (60 * before.embedding - 60 * 7 - (7 + 1) * before.embedding)
    word = weights["embeddings.word"] @ weights["embeddings.expand.weight"] + weights["embeddings.expand.bias"]
    np.testing.assert_allclose(word, model.get_input_embeddings()(torch.arange(60)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_narrow_table_is_quantized_and_the_map_is_not(model, bits):
    factorize.apply(model, FactorizeStep(7), context_for(model))
    step = quantization.QuantizeStep(*by_block((32,) * 3, (32,) * 3), bits)
    quantization.apply(model, step, context_for(model))
    word = model.get_input_embeddings()
    assert isinstance(word, FactorizedEmbedding) and isinstance(word.table, QuantizedEmbedding)
    shape = adapter_of(model).shape(model)
    assert (shape.embedding_rank, shape.embedding_bits) == (7, bits)
    specs = {name: spec.dimensions for name, spec in weight_specs(shape).items()}
    assert {name: x.shape for name, x in adapter_of(model).weights(model).items()} == specs


def test_counts_are_those_of_the_students_documents():
    model, asked = tiny_model("bert"), []

    def counts(vocabulary):
        asked.append(vocabulary)
        return torch.arange(vocabulary).float()

    table = model.bert.embeddings.word_embeddings.weight.detach().clone()
    factorize.apply(model, FactorizeStep(3), replace(context_for(model), token_counts=counts))
    expected = factors_of(table, 3, torch.arange(60) + 1.0)
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.table.weight.detach(), expected.rows)
    assert asked == [60]
    again = tiny_model("bert")
    factorize.apply(again, FactorizeStep(3, by_frequency=False), replace(context_for(again), token_counts=counts))
    plain = factors_of(table, 3, torch.ones(60))
    torch.testing.assert_close(again.bert.embeddings.word_embeddings.table.weight.detach(), plain.rows)
    assert asked == [60]


def test_rank_0_leaves_the_table_whole(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    factorize.apply(model, FactorizeStep(0), context_for(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("rank", [-1, 48, 500])
def test_a_rank_that_saves_nothing_is_refused(rank):
    with pytest.raises(ConfigError, match=f"rank {rank}") as caught:
        factorize.apply(tiny_model("bert"), FactorizeStep(rank), context_for(tiny_model("bert")))
    assert "48 wide" in caught.value.right and "embedding_rank" in caught.value.next_step


def test_a_table_is_factorised_once_and_before_it_is_quantized(model):
    quantized = tiny_model("bert")
    quantization.apply(quantized, quantization.QuantizeStep(*by_block((32,) * 3, (32,) * 3), 8), context_for(quantized))
    with pytest.raises(UnsupportedError, match="8 bits"):
        factorize.apply(quantized, FactorizeStep(4), context_for(quantized))
    factorize.apply(model, FactorizeStep(4), context_for(model))
    with pytest.raises(UnsupportedError, match="rank 4 already"):
        factorize.apply(model, FactorizeStep(3), context_for(model))
