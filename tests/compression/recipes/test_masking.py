import math

import pytest
import torch

from autocompress.compression.recipes.masking import NOT_ASKED, Masking, mask_tokens, rarity

SETTINGS = Masking()
CLS, SEP, PAD, MASK = 0, 1, 2, 3
SPECIAL = (CLS, SEP, PAD, MASK)
VOCABULARY = 1000


def draw(ids, weights, generator, mask=None, settings=SETTINGS):
    mask = torch.ones_like(ids) if mask is None else mask
    return mask_tokens(ids, mask, weights, mask_id=MASK, settings=settings, generator=generator)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def documents(count=8, tokens=20):
    """Return ids and mask of documents that are [CLS] tokens [SEP] and padding of different lengths."""
    ids = torch.randint(10, VOCABULARY, (count, tokens), generator=generator(5))
    mask = torch.ones_like(ids)
    ids[:, 0] = CLS
    for row in range(count):
        end = tokens - row
        ids[row, end - 1], ids[row, end:], mask[row, end:] = SEP, PAD, 0
    return ids, mask


def test_weights_fall_with_a_power_of_the_count_and_are_zero_for_special_tokens():
    weights = rarity(torch.tensor([500, 0, 1, 16]), [0], SETTINGS)
    assert weights.tolist() == pytest.approx([0, 1, 1, 16**-0.7])


def test_a_rare_token_is_drawn_more_often_by_the_power_of_how_much_rarer_it_is():
    # Six tokens of which ceil(0.15 * 6) = 1 is drawn, so that shares are those of a single draw, exactly.
    common, rare, trials = 40, 41, 20_000
    counts = torch.zeros(VOCABULARY)
    counts[common], counts[rare] = 320, 20
    weights, draws = rarity(counts, SPECIAL, SETTINGS), generator()
    ids = torch.tensor([[CLS, common, rare, common, rare, SEP]])
    labels = torch.stack([draw(ids, weights, draws).labels[0] for _ in range(trials)])
    asked = labels[labels != NOT_ASKED]
    assert len(asked) == trials
    ratio = (320 / 20) ** 0.7
    expected = ratio / (1 + ratio)
    bound = 4 * math.sqrt(expected * (1 - expected) / trials)
    assert abs((asked == rare).double().mean().item() - expected) < bound


def test_as_many_are_asked_as_the_share_of_the_tokens_of_the_batch():
    ids, mask = documents()
    batch = draw(ids, rarity(torch.ones(VOCABULARY), SPECIAL, SETTINGS), generator(), mask)
    assert (batch.labels != NOT_ASKED).sum() == math.ceil(0.15 * mask.sum().item())
    torch.testing.assert_close(batch.labels[batch.labels != NOT_ASKED], ids[batch.labels != NOT_ASKED])
    torch.testing.assert_close(batch.input_ids[batch.labels == NOT_ASKED], ids[batch.labels == NOT_ASKED])


def test_of_those_asked_most_are_masked_and_some_are_read_as_they_are_or_as_another_token():
    ids, mask = documents(60, 80)
    weights, draws = rarity(torch.ones(VOCABULARY), SPECIAL, SETTINGS), generator()
    batches = [draw(ids, weights, draws, mask) for _ in range(20)]
    asked = torch.cat([batch.labels[batch.labels != NOT_ASKED] for batch in batches])
    read = torch.cat([batch.input_ids[batch.labels != NOT_ASKED] for batch in batches])
    # A random token is the same one once in 996 draws.
    same = 0.1 + 0.1 / (VOCABULARY - len(SPECIAL))
    for found, expected in (((read == MASK), 0.8), ((read == asked), same)):
        bound = 4 * math.sqrt(expected * (1 - expected) / len(asked))
        assert abs(found.double().mean().item() - expected) < bound
    others = read[(read != MASK) & (read != asked)]
    # Random tokens are drawn evenly: their mean is that of the ordinary ids 4 to 999, whatever ids there were.
    bound = 4 * (VOCABULARY - 4) / math.sqrt(12 * len(others))
    assert abs(others.double().mean().item() - (4 + 999) / 2) < bound and others.min() >= len(SPECIAL)


def test_special_tokens_and_padding_are_never_asked_nor_changed():
    ids, mask = documents()
    weights = rarity(torch.ones(VOCABULARY), SPECIAL, SETTINGS)
    for seed in range(50):
        batch = draw(ids, weights, generator(seed), mask, Masking(share=0.9))
        untouched = (ids < len(SPECIAL)) | (mask == 0)
        assert (batch.labels[untouched] == NOT_ASKED).all() and (batch.input_ids[untouched] == ids[untouched]).all()


def test_padding_is_not_drawn_even_where_its_token_is_an_ordinary_one():
    ids, mask = torch.full((1, 10), 50), torch.tensor([[1] * 4 + [0] * 6])
    batch = draw(ids, torch.ones(VOCABULARY), generator(), mask, Masking(share=1.0))
    assert (batch.labels != NOT_ASKED).tolist() == [[True] * 4 + [False] * 6]


def test_documents_without_a_word_are_left_as_they_are():
    ids = torch.tensor([[CLS, SEP]])
    batch = draw(ids, rarity(torch.ones(VOCABULARY), SPECIAL, SETTINGS), generator())
    assert batch.input_ids.tolist() == ids.tolist() and batch.labels.tolist() == [[NOT_ASKED] * 2]


def test_the_same_generator_state_gives_the_same_batch_and_the_next_draw_another():
    ids, mask = documents()
    weights, draws = rarity(torch.ones(VOCABULARY), SPECIAL, SETTINGS), generator(1)
    first, again, next_one = (draw(ids, weights, g, mask) for g in (draws, generator(1), draws))
    assert torch.equal(first.labels, again.labels) and torch.equal(first.input_ids, again.input_ids)
    assert not torch.equal(first.labels, next_one.labels)
