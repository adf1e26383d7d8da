import pytest
import torch

from autocompress.compression.ranking.token_importance import attention_received, extrapolate
from autocompress.compression.vocabulary import order_tokens
from autocompress.models.load import adapter_of
from tests.compression.training_data import Batch
from tests.conftest import tiny_model

LAYERS, HEADS = 3, 4


def batch(ids: list[list[int]], mask: list[list[int]] | None = None) -> Batch:
    found = torch.tensor(ids)
    seen = torch.ones_like(found) if mask is None else torch.tensor(mask)
    return Batch(found, seen, torch.zeros(len(ids), dtype=torch.int64), torch.arange(len(ids)))


def test_every_query_gives_one_attention_a_layer_and_head(model):
    received = attention_received(model, [batch([[2, 7, 9, 3], [2, 7, 3, 1]], [[1, 1, 1, 1], [1, 1, 1, 0]])])
    assert float(received.sum()) == pytest.approx(LAYERS * HEADS * 7, rel=1e-6)
    assert set(received.nonzero().flatten().tolist()) == {2, 3, 7, 9}


def test_attention_of_and_to_padding_does_not_count(model):
    alone = attention_received(model, [batch([[2, 7, 9, 3]])])
    padded = attention_received(model, [batch([[2, 7, 9, 3, 1, 1]], [[1, 1, 1, 1, 0, 0]])])
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


def test_attention_is_summed_over_documents_layers_heads_and_places():
    model = tiny_model("bert")
    documents = [[2, 7, 7, 3], [2, 8, 7, 3]]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=torch.tensor(documents), output_attentions=True).attentions
    expected = torch.zeros(60, dtype=torch.float64)
    for layer in maps:
        for document, ids in enumerate(documents):
            for key, token in enumerate(ids):
                for query, asking in enumerate(ids):
                    if asking != 3:
                        expected[token] += float(layer[document, :, query, key].double().sum())
    found = attention_received(model, [batch(documents)], not_from=[3])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_token_that_nobody_looks_at_goes_before_one_that_is_as_frequent():
    model, planted, other = tiny_model("bert"), 30, 31
    adapter = adapter_of(model)
    adapter.keep_layers(model, [0])
    layer = adapter.layers(model)[0]
    with torch.no_grad():
        layer.get(layer.query).weight.zero_()
        layer.get(layer.query).bias.normal_(generator=torch.Generator().manual_seed(1)).mul_(3.0)
        # What every query looks for, and the planted token is the opposite of.
        wanted = layer.get(layer.query).bias @ layer.get(layer.key).weight
        model.bert.embeddings.word_embeddings.weight[planted] = -20.0 * wanted
    documents = [[2, planted, 9, other, 3], [2, other, 10, planted, 3]]
    received = attention_received(model, [batch(documents)])
    assert 0 < float(received[planted]) < 0.01 * float(received[other])
    counts = torch.bincount(torch.tensor(documents).flatten(), minlength=60)
    order = order_tokens(received, counts, needed=[0, 2, 3], common=[], parts={})
    assert order[:3] == (0, 2, 3) and order.index(planted) > max(order.index(token) for token in (9, 10, other))


def test_the_model_computes_attention_as_before(model):
    model.set_attn_implementation("sdpa")
    attention_received(model, [batch([[2, 7, 3]])])
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


def test_what_some_documents_show_is_extrapolated_to_all():
    """Token 1 receives 2 an occurrence, token 2 1.5, and what was not read the mean of 5 / 3."""
    received, sampled = torch.tensor([0.0, 2.0, 3.0, 0.0]), torch.tensor([0, 1, 2, 0])
    found = extrapolate(received, sampled, torch.tensor([0, 10, 4, 3]))
    torch.testing.assert_close(found, torch.tensor([0.0, 20.0, 6.0, 5.0]))
    torch.testing.assert_close(extrapolate(received, sampled, sampled), received)
