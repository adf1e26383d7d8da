import math

import pytest
import torch

from autocompress.compression.recipes.masked_lm import (
    fit_head,
    guesses,
    last_hidden,
    masked_cross_entropy,
)
from autocompress.compression.recipes.masking import NOT_ASKED, MaskedBatch, Masking, mask_tokens
from autocompress.errors import UnsupportedError
from autocompress.models.language_head import new_head, token_rows
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches
from tests.conftest import tiny_model


def rows(seed, count=5, width=60):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_cross_entropy_counts_tokens_that_are_asked_and_no_other():
    logits, labels = rows(0), torch.tensor([3, NOT_ASKED, 7, NOT_ASKED, NOT_ASKED])
    logs = logits.double().log_softmax(-1)
    expected = -(logs[0, 3] + logs[2, 7]) / 2
    torch.testing.assert_close(masked_cross_entropy(logits, labels).double(), expected, rtol=1e-6, atol=0)
    assert masked_cross_entropy(logits, torch.full((5,), NOT_ASKED)) == 0


def masked(count, share=0.3):
    generator = torch.Generator().manual_seed(0)
    weights = torch.ones(60)
    weights[:5] = 0
    return [
        mask_tokens(
            each.input_ids,
            each.attention_mask,
            weights,
            mask_id=4,
            settings=Masking(share=share),
            generator=generator,
        )
        for each in batches(count)
    ]


def test_a_head_learns_what_text_is_like_and_the_encoder_stays_as_it_is(family):
    model = tiny_model(family).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head = new_head(model, generator=torch.Generator().manual_seed(0))
    text = masked(8)
    start, _ = guesses(head, model, text)
    log = fit_head(head, model, text * 20, steps=160, learning_rate=3e-3)
    nats, right = guesses(head, model, text)
    # Of 35 tokens that occur, evenly, none can be guessed better than this without reading the text.
    assert nats < math.log(35) < start and right > 2 / 35 and len(log.losses) == 160
    assert model.training and not head.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_guesses_are_counted_over_all_tokens_of_all_batches():
    model = tiny_model("bert")
    head = new_head(model, generator=torch.Generator().manual_seed(0))
    text = masked(3)
    nats, right = [], []
    for batch in text:
        logits = head(last_hidden(model, batch), token_rows(model)).double().log_softmax(-1)
        for row, column in (batch.labels != NOT_ASKED).nonzero().tolist():
            label = batch.labels[row, column]
            nats.append(-logits[row, column, label].item())
            right.append(bool(logits[row, column].argmax() == label))
    found = guesses(head, model, text)
    assert found == pytest.approx((sum(nats) / len(nats), sum(right) / len(right)), rel=1e-5)


def test_models_that_drop_tokens_have_no_states_to_guess_all_of_them_from():
    model = tiny_model("bert")
    adapter_of(model).select_tokens(model, (0, 4, 3))
    batch = MaskedBatch(torch.full((2, 6), 7), torch.ones(2, 6, dtype=torch.int64), torch.full((2, 6), NOT_ASKED))
    with pytest.raises(UnsupportedError, match="Of 6 tokens, ") as caught:
        last_hidden(model, batch)
    assert "`tokens`" in caught.value.next_step
