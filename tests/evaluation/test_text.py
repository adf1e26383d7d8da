"""Text without labels: how files become documents, and documents batches."""

import pytest
import torch

from autocompress.errors import SourceError, UnsupportedError
from autocompress.evaluation.sources import sha256_of
from autocompress.evaluation.text import Corpus, TextSpec, cut, load_text
from tests.evaluation.test_tokenizers import KINDS, TEXTS, whole


def read(path, **settings):
    return load_text(TextSpec(str(path), **settings), cache=path.parent / "cache")


def test_each_line_of_a_file_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone  two\r\n\r\n \r\n three\n".encode())
    assert read(tmp_path / "a.txt") == ("one two", "three")


def test_paragraphs_are_lines_up_to_an_empty_one(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n \n\n\nthree\n", encoding="utf-8")
    assert read(tmp_path / "a.txt", unit="paragraph") == ("one two", "three")


def test_of_a_folder_every_text_file_is_read_in_the_order_of_names(tmp_path):
    folder = tmp_path / "text"
    (folder / "b").mkdir(parents=True)
    for name, text in (("c.txt", "three"), ("a.txt", "one"), ("b/x.txt", "two"), ("notes.md", "none")):
        (folder / name).write_text(text, encoding="utf-8")
    assert read(folder) == ("one", "two", "three")


def test_a_file_may_be_pinned(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one", encoding="utf-8")
    assert read(path, sha256=sha256_of(path)) == ("one",)
    with pytest.raises(SourceError, match="not what was pinned"):
        read(path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b"\n \n", "holds no text"), (b"a\0b", "zero bytes"), (b"\xff\xfe\x00", "is not utf-8")],
)
def test_a_file_that_is_empty_or_no_text_is_refused(tmp_path, content, wrong):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=wrong) as caught:
        read(path)
    assert "task.text" in caught.value.next_step


def test_a_missing_source_and_a_folder_without_text_are_refused(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        read(tmp_path / "gone.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no file of text") as caught:
        read(tmp_path / "empty")
    assert ".txt" in caught.value.right


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_between_words_into_as_few_as_fit(kind):
    tokenizer = whole(kind)
    texts = [" ".join(TEXTS), "the river"]
    room = 9
    found = cut(texts, tokenizer, max_tokens=room)
    assert "".join(found[:-1]) == texts[0] and found[-1] == texts[1]
    counts = [len(tokenizer(text)["input_ids"]) for text in found]
    assert max(counts) <= room
    for first, second in zip(found[:-2], found[1:-1], strict=True):
        longer = f"{first} {second.split()[0]}"
        assert len(tokenizer(longer)["input_ids"]) > room


def test_a_word_of_more_tokens_than_there_is_room_stays_alone():
    tokenizer = whole("WordPiece")
    assert len(tokenizer("nearnearnear", add_special_tokens=False)["input_ids"]) > 2
    assert cut(["the nearnearnear old river"], tokenizer, max_tokens=4) == ("the", " nearnearnear", " old river")


def test_a_tokenizer_that_knows_no_places_cannot_cut():
    class Slow:
        is_fast = False

    with pytest.raises(UnsupportedError, match="Slow"):
        cut(["text"], Slow(), max_tokens=8)


def test_batches_hold_each_document_once_padded_to_the_longest():
    tokenizer = whole("WordPiece")
    corpus = Corpus([*TEXTS, "river"], tokenizer, max_tokens=8)
    batches = corpus.batches(batch_size=2, seed=3)
    assert sorted(len(batch.indices) for batch in batches) == [1, 2, 2]
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == [0, 1, 2, 3, 4]
    for batch in batches:
        for ids, mask, index in zip(batch.input_ids, batch.attention_mask, batch.indices, strict=True):
            expected = tokenizer(corpus.texts[index], truncation=True, max_length=8)["input_ids"]
            assert ids[mask.bool()].tolist() == expected and (ids[mask == 0] == tokenizer.pad_token_id).all()
        assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]


def test_the_seed_decides_the_order():
    corpus = Corpus(TEXTS * 5, whole("WordPiece"), max_tokens=8)
    first, again, other = (torch.cat([b.indices for b in corpus.batches(batch_size=4, seed=s)]) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_another_tokenizer_reads_the_same_documents_at_the_same_places():
    corpus = Corpus(TEXTS, whole("WordPiece"), max_tokens=40)
    other = corpus.with_tokenizer(whole("Unigram"))
    assert other.texts == corpus.texts and other.max_tokens == 40
    decoded = other.tokenizer.decode(other.gather(torch.tensor([1])).input_ids[0], skip_special_tokens=True)
    assert decoded.strip() == TEXTS[1]


def test_tokens_are_counted_over_all_documents():
    tokenizer = whole("WordPiece")
    corpus = Corpus(TEXTS, tokenizer, max_tokens=40)
    counts = corpus.token_counts(len(tokenizer))
    assert counts[tokenizer.cls_token_id] == len(TEXTS) and len(counts) == len(tokenizer)
    assert counts.sum() == sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
