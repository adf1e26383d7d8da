"""Candidates of every kind of tokenizer, against what the model says when it is asked by hand."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from autocompress.compression.recipes.augmentation import Augmentation, augment
from autocompress.compression.recipes.candidate_words import CandidateWords
from autocompress.compression.recipes.words import content_words, has_content, parts_of, vocabulary_words
from autocompress.errors import UnsupportedError
from autocompress.models.language_head import new_head, token_rows
from tests.conftest import WIDTHS
from tests.evaluation.test_tokenizers import KINDS, TEXTS, whole

SETTINGS = Augmentation(variants=30, candidates=15)


def encoder_for(tokenizer, kind, positions=64):
    settings = {**WIDTHS, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    if kind in ("WordPiece", "WordLevel"):
        model = BertForSequenceClassification(BertConfig(**settings, max_position_embeddings=positions))
    else:
        # RoBERTa counts positions from the one after the padding token's id.
        positions += tokenizer.pad_token_id + 1
        model = RobertaForSequenceClassification(RobertaConfig(**settings, max_position_embeddings=positions))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def tokenizer(kind):
    return whole(kind)


@pytest.fixture
def encoder(tokenizer, kind):
    return encoder_for(tokenizer, kind)


@pytest.fixture
def head(encoder):
    return new_head(encoder, generator=torch.Generator().manual_seed(0))


def test_candidates_stand_for_words_with_a_meaning_and_begin_a_word(kind, tokenizer, encoder, head):
    found = CandidateWords(encoder, head, tokenizer, SETTINGS)([*TEXTS, TEXTS[0]])
    assert list(found) == TEXTS
    names = {word for word in vocabulary_words(tokenizer) if word} | {w for text in TEXTS for w in text.split()}
    for text, candidates in found.items():
        assert candidates.keys() == {place for place, _ in content_words(parts_of(text))}
        for words in candidates.values():
            assert 1 <= len(words) <= SETTINGS.candidates and set(words) <= names


def test_a_single_piece_has_the_guesses_of_the_model_that_reads_it_masked(kind, tokenizer, encoder, head):
    encoder.eval()
    text, words = "the old river runs", vocabulary_words(tokenizer)
    found = CandidateWords(encoder, head, tokenizer, SETTINGS)([text])[text]
    # Of the kinds here, WordPiece and byte-level byte pairs are made with a template for pairs, and BERT's own has one.
    ids = tokenizer(text, *([text] if kind != "Unigram" else []))["input_ids"]
    vocabulary = tokenizer.get_vocab()
    piece = next(piece for piece in ("Ġriver", "▁river", "river") if piece in vocabulary)
    position = ids.index(vocabulary[piece])
    ids[position] = tokenizer.mask_token_id
    batch = torch.tensor([ids])
    hidden = encoder.base_model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
    logits = head(hidden[0, position], token_rows(encoder))
    expected = [words[token] for token in logits.topk(15).indices.tolist() if words[token] is not None]
    assert list(found[5]) == expected


@pytest.mark.parametrize("kind", ["WordPiece", "byte-level BPE", "Unigram"])
def test_a_word_of_several_pieces_has_the_words_with_the_nearest_mean_row(kind):
    tokenizer = whole(kind)
    encoder = encoder_for(tokenizer, kind)
    head = new_head(encoder, generator=torch.Generator().manual_seed(0))
    texts = [*TEXTS, "the Unseenly river"]
    settings = Augmentation(candidates=4)
    found = CandidateWords(encoder, head, tokenizer, settings)(texts)[texts[-1]]
    corpus = sorted({word.lower() for text in texts for _, word in content_words(parts_of(text))})
    rows = token_rows(encoder).detach().double()
    vectors = {
        word: rows[tokenizer(f"the {word}", add_special_tokens=False)["input_ids"][_pieces(tokenizer, "the") :]].mean(0)
        for word in corpus
    }
    own = vectors.pop("unseenly")
    cosine = {word: torch.cosine_similarity(own, vector, dim=0).item() for word, vector in vectors.items()}
    assert list(found[3]) == sorted(cosine, key=cosine.__getitem__, reverse=True)[:4]


def test_without_a_head_a_single_piece_has_the_nearest_words_of_a_single_piece(tokenizer, kind, encoder):
    words, rows = vocabulary_words(tokenizer), token_rows(encoder).detach().double()
    found = CandidateWords(encoder, None, tokenizer, Augmentation(candidates=4))(["the old river"])["the old river"]
    vectors = {word: rows[token] for token, word in enumerate(words) if word and has_content(word)}
    own = vectors.pop("river")
    cosine = {word: torch.cosine_similarity(own, vector, dim=0).item() for word, vector in vectors.items()}
    assert list(found[5]) == sorted(cosine, key=cosine.__getitem__, reverse=True)[:4]


def _pieces(tokenizer, text):
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_stop_words_and_all_between_words_are_never_altered(tokenizer, encoder, head):
    texts = ["The old, old river's houses -- they aren't near!", *TEXTS]
    candidates = CandidateWords(encoder, head, tokenizer, SETTINGS)(texts)
    found = augment(texts, candidates, SETTINGS)
    assert len(found) > 2 * len(texts)
    for index, text in enumerate(texts):
        parts, made = parts_of(text), [parts_of(variant) for place, variant in found if place == index]
        free = {place for place, _ in content_words(parts)}
        assert "".join(made[0]) == text
        for each in made:
            assert len(each) == len(parts)
            assert all(each[place] == word for place, word in enumerate(parts) if place not in free)


def test_the_encoder_is_left_in_the_mode_it_was_in_and_progress_is_told(tokenizer, encoder, head):
    told = []
    encoder.train()
    words = CandidateWords(encoder, head, tokenizer, SETTINGS, batch_size=4, on_batch=lambda *done: told.append(done))
    assert words(TEXTS) == CandidateWords(encoder, head, tokenizer, SETTINGS)(TEXTS)
    assert encoder.training and told[-1][0] == told[-1][1] > len(told) > 1


def test_words_beyond_what_the_encoder_reads_have_no_candidates():
    tokenizer = whole("WordPiece")
    encoder = encoder_for(tokenizer, "WordPiece", positions=11)
    head = new_head(encoder, generator=torch.Generator().manual_seed(0))
    found = CandidateWords(encoder, head, tokenizer, SETTINGS)([TEXTS[0]])
    # [CLS] 4 pieces [SEP] 4 pieces [SEP] fill 11 positions: "the old river runs".
    assert found[TEXTS[0]].keys() == {3, 5, 7}


def test_no_documents_have_no_candidates(tokenizer, encoder, head):
    assert CandidateWords(encoder, head, tokenizer, SETTINGS)([]) == {}


def test_a_tokenizer_without_a_mask_token_is_refused():
    tokenizer = whole("WordPiece")
    encoder = encoder_for(tokenizer, "WordPiece")
    head = new_head(encoder, generator=torch.Generator().manual_seed(0))
    tokenizer.mask_token = None
    with pytest.raises(UnsupportedError, match="no mask token"):
        CandidateWords(encoder, head, tokenizer, SETTINGS)
    assert CandidateWords(encoder, None, tokenizer, SETTINGS)(TEXTS)
