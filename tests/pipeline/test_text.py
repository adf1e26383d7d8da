"""A run's text, and documents varied and kept, with a tiny encoder."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from autocompress.compression.recipes.augmentation import Augmentation
from autocompress.compression.recipes.masked_lm import guesses
from autocompress.compression.recipes.masking import NOT_ASKED
from autocompress.compression.recipes.words import content_words, parts_of
from autocompress.config import RunConfig
from autocompress.errors import StorageError
from autocompress.evaluation.datasets import Dataset, Split
from autocompress.evaluation.text import Corpus
from autocompress.evaluation.text_classification import TextClassification
from autocompress.models.language_head import new_head, read_head
from autocompress.pipeline import text
from tests.conftest import WIDTHS
from tests.evaluation.test_tokenizers import TEXTS, whole

SPLIT = Split((*TEXTS, TEXTS[0]), (0, 1, 1, 0, 1))
SETTINGS = Augmentation(variants=8)


@pytest.fixture(scope="module")
def tokenizer():
    return whole("WordPiece")


@pytest.fixture
def encoder(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(**WIDTHS, vocab_size=len(tokenizer), max_position_embeddings=64)
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def head(encoder):
    return new_head(encoder, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def varied(encoder, head, tokenizer, tmp_path):
    def vary(split=SPLIT, settings=SETTINGS, **changes):
        arguments = {"encoder": encoder, "head": head, "tokenizer": tokenizer, "cache": tmp_path} | changes
        return text.augmented_split(split, settings=settings, **arguments)

    return vary


def refuse(*_arguments, **_settings):
    raise AssertionError("nothing was to be guessed again")


def test_each_document_is_followed_by_its_variants_with_its_label(varied):
    found = varied()
    starts = [0]
    for document, label in zip(SPLIT.texts, SPLIT.labels, strict=True):
        start = starts[-1]
        assert (found.texts[start], found.labels[start]) == (document, label)
        fixed = [p for p in range(len(parts_of(document))) if p not in dict(content_words(parts_of(document)))]
        end = start + 1
        while end < len(found) and found.texts[end] not in SPLIT.texts:
            parts = parts_of(found.texts[end])
            assert [parts[p] for p in fixed] == [parts_of(document)[p] for p in fixed]
            assert found.labels[end] == label
            end += 1
        assert 1 < end - start <= 1 + SETTINGS.variants
        starts.append(end)
    assert starts[-1] == len(found)


def test_varied_documents_are_made_once(varied, monkeypatch):
    first = varied()
    monkeypatch.setattr(text, "CandidateWords", refuse)
    assert varied() == first


def test_a_classifier_that_differs_makes_no_other_variants_but_everything_else_does(varied, encoder, head, tmp_path):
    def kept():
        return len(list((tmp_path / "augmented").glob("*.jsonl")))

    varied()
    with torch.no_grad():
        encoder.classifier.weight.add_(1.0)
    varied()
    assert kept() == 1
    varied(settings=replace(SETTINGS, seed=1))
    varied(split=replace(SPLIT, labels=(0, 1, 1, 0, 0)))
    varied(tokenizer=whole("WordLevel"))
    varied(head=None)
    with torch.no_grad():
        head.bias.add_(torch.randn(len(head.bias)))
    varied()
    with torch.no_grad():
        encoder.bert.encoder.layer[0].output.dense.weight.add_(0.1)
    varied()
    assert kept() == 7


@pytest.mark.parametrize("damage", ["", '{"documents": 1}\n', '{"documents": 1}\n{"text": "a"}\n', "{", '["a"]\n'])
def test_a_damaged_file_is_made_again(varied, tmp_path, damage):
    first = varied()
    (path,) = (tmp_path / "augmented").glob("*.jsonl")
    path.write_text(damage, encoding="utf-8")
    assert varied() == first


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(varied, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        varied(cache=tmp_path / "file")
    assert "Free space" in caught.value.next_step


def test_a_full_disk_is_an_error_and_leaves_no_file_behind(varied, disk):
    (disk.folder / "other").write_bytes(bytes(8192))
    disk.fill()
    with pytest.raises(StorageError, match="No space left"):
        varied(cache=disk.folder)
    assert [path.name for path in disk.folder.rglob("*") if path.is_file()] == ["other"]


def task_of(tokenizer):
    dataset = Dataset(SPLIT, SPLIT, SPLIT, ("no", "yes"))
    return TextClassification(dataset, tokenizer, max_tokens=12)


def config_with(**task):
    return RunConfig.model_validate(
        {"model": {"source": "m"}, "task": {"data": {"source": "d"}, **task}, "budget": {"size": "1 MB"}}
    )


def test_without_a_text_of_its_own_a_run_learns_from_its_training_documents(tokenizer):
    corpus = text.corpus_of(config_with(), task_of(tokenizer))
    assert corpus.texts == SPLIT.texts and corpus.max_tokens == 12


def test_the_text_of_a_run_is_cut_to_its_tokens(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text(" ".join(TEXTS) + "\nthe river\n", encoding="utf-8")
    corpus = text.corpus_of(config_with(text={"source": str(tmp_path / "a.txt")}), task_of(tokenizer))
    assert "".join(corpus.texts) == " ".join(TEXTS) + "the river" and len(corpus) > 3
    assert all(len(tokenizer(document)["input_ids"]) <= 12 for document in corpus.texts)


def test_batches_go_on_for_as_many_steps_in_another_order_each_pass(tokenizer):
    corpus = Corpus(TEXTS * 4, tokenizer, max_tokens=12)
    batches = list(text.text_batches(corpus, 6, batch_size=8, seed=0))
    orders = [torch.cat([batch.indices for batch in batches[start : start + 2]]).tolist() for start in (0, 2, 4)]
    assert [sorted(order) for order in orders] == [list(range(16))] * 3 and len(set(map(tuple, orders))) == 3


def test_tokens_to_guess_are_drawn_anew_for_each_batch_and_alike_for_one_seed(tokenizer):
    corpus = Corpus([TEXTS[0]] * 4, tokenizer, max_tokens=40)
    first, again = (list(text.masked_batches(corpus, 3, batch_size=4, seed=5)) for _ in range(2))
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].labels, first[1].labels)
    special = torch.tensor(tokenizer.all_special_ids)
    asked = torch.cat([batch.labels[batch.labels != NOT_ASKED] for batch in first])
    assert len(asked) > 0 and not torch.isin(asked, special).any()


def test_a_head_is_read_where_there_is_one_and_made_where_there_is_none_and_fitted(encoder, tokenizer, tmp_path):
    corpus = Corpus(TEXTS, tokenizer, max_tokens=40)
    BertForMaskedLM(encoder.config).save_pretrained(tmp_path / "with")
    encoder.save_pretrained(tmp_path / "without")
    read = text.language_head(tmp_path / "with", encoder, corpus, steps=0)
    assert torch.equal(read.dense.weight, read_head(tmp_path / "with").dense.weight)
    made, fitted = (text.language_head(tmp_path / "without", encoder, corpus, steps=steps) for steps in (0, 60))
    asked = list(text.masked_batches(corpus, 20, batch_size=4, seed=9))
    assert guesses(fitted, encoder, asked)[0] < guesses(made, encoder, asked)[0]


def test_words_are_guessed_by_the_head_of_a_checkpoint_only_if_it_guesses_well(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = BertConfig(**WIDTHS, vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.2)
    encoder, corpus = BertForSequenceClassification(config).eval(), Corpus(TEXTS, tokenizer, max_tokens=40)
    encoder.save_pretrained(tmp_path / "without")
    assert text.head_of_checkpoint(tmp_path / "without", encoder, corpus) is None
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "untrained")
    assert text.head_of_checkpoint(tmp_path / "untrained", encoder, corpus) is None
    # Four sentences can be learnt by heart, about half of their tokens, though the encoder learns nothing.
    trained = text.language_head(tmp_path / "without", encoder, corpus, steps=800)
    for name, own in (("transform.dense", trained.dense), ("transform.LayerNorm", trained.norm)):
        model.cls.predictions.get_submodule(name).load_state_dict(own.state_dict())
    model.cls.predictions.bias.data = trained.bias.data
    model.bert.load_state_dict(encoder.bert.state_dict(), strict=False)
    model.save_pretrained(tmp_path / "trained")
    found = text.head_of_checkpoint(tmp_path / "trained", encoder, corpus)
    assert torch.equal(found.dense.weight, trained.dense.weight)
