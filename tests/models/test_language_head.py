"""Heads that guess tokens, against the masked language models of transformers."""

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from autocompress.compression import factorize
from autocompress.compression.recipes.masked_lm import last_hidden
from autocompress.errors import SourceError, UnsupportedError
from autocompress.models.language_head import HEADS, new_head, read_head, token_rows
from autocompress.models.load import ADAPTERS, adapter_of
from tests.compression.training_data import batches, context_for
from tests.conftest import COMMON, WIDTHS, tiny_model

CONFIGS = {
    "bert": lambda: BertConfig(**WIDTHS, **COMMON, hidden_act="relu"),
    "distilbert": lambda: DistilBertConfig(dim=48, n_layers=3, n_heads=4, hidden_dim=96, **COMMON),
    "electra": lambda: ElectraConfig(**WIDTHS, **COMMON, embedding_size=32),
    "roberta": lambda: RobertaConfig(**WIDTHS, **COMMON, pad_token_id=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**WIDTHS, **COMMON, pad_token_id=1),
    "camembert": lambda: CamembertConfig(**WIDTHS, **COMMON, pad_token_id=1),
}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_the_head_of_every_family_is_known():
    readers = {name for name, adapter in ADAPTERS.items() if adapter.auto_class == "AutoModelForSequenceClassification"}
    assert HEADS.keys() == readers == CONFIGS.keys()


@pytest.mark.parametrize("family", CONFIGS)
def test_a_head_that_is_read_gives_the_logits_of_the_masked_language_model(family, tmp_path):
    original = AutoModelForMaskedLM.from_config(CONFIGS[family]()).eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    original.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch, head = batches(1)[0], read_head(tmp_path)
    with torch.no_grad():
        expected = original(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        found = head(last_hidden(classifier, batch), token_rows(classifier))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_without_a_head_has_none(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path)
    assert read_head(tmp_path) is None


def test_a_decoder_of_its_own_is_refused(tmp_path):
    AutoModelForMaskedLM.from_config(BertConfig(**WIDTHS, **COMMON, tie_word_embeddings=False)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UnsupportedError, match="decoder of its own"):
        read_head(tmp_path)


def test_what_is_no_model_folder_is_an_error_that_says_so(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        read_head(tmp_path)


def test_a_new_head_knows_how_frequent_tokens_are_and_fits_the_encoder(family, generator):
    model = tiny_model(family)
    # A table may have rows for more tokens than the tokenizer knows.
    counts = torch.arange(60) * (torch.arange(60) < 57)
    head = new_head(model, generator=generator, counts=counts[:57])
    assert head.dense.in_features == 48 and head.dense.out_features == token_rows(model).shape[1]
    torch.testing.assert_close(head.bias.softmax(0), (counts + 1) / (counts + 1).sum())
    assert head(last_hidden(model, batches(1)[0]), token_rows(model)).shape == (4, 6, 60)


def test_rows_of_a_factorised_table_are_those_that_the_encoder_reads(family):
    model = tiny_model(family)
    model = factorize.apply(model, factorize.FactorizeStep(rank=8), context_for(model))
    ids = torch.arange(60)
    torch.testing.assert_close(token_rows(model), model.get_input_embeddings()(ids))
    token_rows(model).sum().backward()
    assert adapter_of(model).token_embedding(model).weight.grad is not None
