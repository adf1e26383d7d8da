from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocompress.compiler.graph import weight_specs
from autocompress.compression import factorize, vocabulary
from autocompress.compression.vocabulary import VocabularyStep, kept_of, kept_tokens, order_tokens
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.shape import LayerShape, ModelShape
from tests.compression.training_data import context_for
from tests.conftest import tiny_model

SHAPE = ModelShape("bert", 60, 40, 48, 48, (LayerShape(4, 12, 96),), 3)


def logits(model, ids, mask=None):
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids), attention_mask=None if mask is None else torch.tensor(mask)).logits


def prune(model, order, keep):
    context = replace(context_for(model), token_order=lambda vocabulary: order)
    return vocabulary.apply(model, VocabularyStep(keep), context)


def test_documents_of_kept_tokens_are_classified_as_before(model):
    order = [0, 1, 2, 3, 50, 41, 7, 9, *(token for token in range(60) if token not in (0, 1, 2, 3, 50, 41, 7, 9))]
    documents, mask = [[2, 50, 7, 41, 9, 3], [2, 41, 3, 1, 1, 1]], [[1] * 6, [1, 1, 1, 0, 0, 0]]
    before = logits(model, documents, mask)
    kept = kept_tokens(order, 8)
    assert kept == (0, 1, 2, 3, 7, 9, 41, 50)
    small = prune(model, order, 8)
    torch.testing.assert_close(
        logits(small, [[kept.index(token) for token in row] for row in documents], mask), before, rtol=0, atol=1e-6
    )
    assert small.config.vocab_size == 8


def test_removed_rows_are_gone_from_parameters_and_file(model):
    before = sum(parameter.numel() for parameter in model.parameters())
    shape = adapter_of(model).shape(model)
    small = prune(model, list(range(60)), 13)
    assert before - sum(parameter.numel() for parameter in small.parameters()) == 47 * shape.embedding
    sizes = [
        sum(spec.size_bytes for spec in weight_specs(each).values()) for each in (shape, replace(shape, vocabulary=13))
    ]
    weights = adapter_of(small).weights(small)
    assert sizes[0] - sizes[1] == 47 * shape.embedding * 4
    assert sum(array.nbytes for array in weights.values()) == sizes[1]


def test_a_whole_vocabulary_changes_nothing(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = prune(model, list(reversed(range(60))), 60)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_padding_may_move_and_positions_with_it():
    """In RoBERTa the first token has the position after the padding id."""
    model = tiny_model("roberta")
    documents, mask = [[2, 50, 7, 3], [2, 9, 3, 1]], [[1] * 4, [1, 1, 1, 0]]
    before, shape = logits(model, documents, mask), adapter_of(model).shape(model)
    kept = [1, 2, 3, 7, 9, 50]
    adapter_of(model).keep_tokens(model, kept)
    assert model.config.pad_token_id == 0 and adapter_of(model).shape(model) == replace(shape, vocabulary=6)
    renamed = [[kept.index(token) for token in row] for row in documents]
    torch.testing.assert_close(logits(model, renamed, mask), before, rtol=0, atol=1e-6)


def test_the_config_names_the_tokens_by_their_new_ids():
    model = tiny_model("bert")
    model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id = 5, 20, 30
    adapter_of(model).keep_tokens(model, [4, 5, 6, 30])
    assert (model.config.pad_token_id, model.config.eos_token_id) == (1, 3)
    assert model.config.bos_token_id is None


@pytest.mark.parametrize("keep", [0, -1, 61])
def test_a_count_that_cannot_be_kept_is_refused_by_shape_and_model(keep):
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match=f"vocabulary of {keep} tokens") as caught:
        vocabulary.reshape(SHAPE, VocabularyStep(keep))
    assert "60" in caught.value.right and "keep" in caught.value.next_step
    with pytest.raises(ConfigError, match=f"vocabulary of {keep} tokens"):
        prune(model, list(range(60)), keep)


def test_a_vocabulary_without_padding_is_refused(model):
    padding = model.config.pad_token_id
    with pytest.raises(UnsupportedError, match="without its padding token"):
        prune(model, [token for token in range(60) if token != padding], 10)


def test_a_table_that_was_factorised_is_not_pruned(model):
    factorize.apply(model, factorize.FactorizeStep(4), context_for(model))
    with pytest.raises(UnsupportedError, match="factorised or quantized"):
        prune(model, list(range(60)), 10)


def test_shares_are_counted_to_the_nearest_token():
    assert [kept_of(60, share) for share in (1.0, 0.5, 0.41, 1e-6)] == [60, 30, 25, 1]


def test_needed_tokens_come_first_then_common_ones_then_the_rest_by_importance():
    importance, counts = torch.tensor([0.0, 5.0, 9.0, 5.0, 0.0, 0.0]), torch.tensor([0, 1, 1, 2, 1, 0])
    order = order_tokens(importance, counts, needed=[5], common=[4, 1], parts={})
    assert order == (5, 1, 4, 2, 3, 0)
    assert order_tokens(importance, counts, needed=[], common=[], parts={}) == (2, 3, 1, 4, 0, 5)


@st.composite
def vocabularies(draw):
    """A vocabulary in which some tokens are made of two earlier ones, as byte-pair merges make them."""
    size = draw(st.integers(2, 20))
    parts = {
        token: tuple(draw(st.lists(st.integers(0, token - 1), min_size=2, max_size=2)))
        for token in draw(st.sets(st.integers(1, size - 1)))
    }
    importance = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    needed = draw(st.lists(st.integers(0, size - 1), unique=True, max_size=3))
    return importance, parts, needed


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(vocabularies())
def test_every_prefix_of_an_order_holds_what_its_tokens_are_made_of(drawn):
    importance, parts, needed = drawn
    order = order_tokens(torch.tensor(importance), torch.zeros(len(importance)), needed=needed, common=(), parts=parts)
    assert sorted(order) == list(range(len(importance)))
    for place, token in enumerate(order):
        assert set(parts.get(token, ())) <= set(order[:place])
    if not parts:
        assert list(order[: len(needed)]) == needed
        np.testing.assert_array_equal(np.diff([importance[token] for token in order[len(needed) :]]) <= 0, True)
