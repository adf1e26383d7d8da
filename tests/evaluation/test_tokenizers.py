"""Smaller tokenizers of every kind that ``tokenizers`` knows, trained on a few sentences."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from autocompress.compression.vocabulary import kept_tokens, order_tokens
from autocompress.errors import UnsupportedError
from autocompress.evaluation.tokenizers import common_tokens, needed_tokens, parts_of_tokens, shrink

TEXTS = [
    "the old river runs near the older houses",
    "riverside houses are the oldest of the old houses",
    "a runner was running near the house by the river",
    "nearer and nearer ran the runners of the riverside",
]
BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def wordpiece():
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=list(BERT.values())))
    names = [(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=names
    )
    return inner, BERT


def wordlevel():
    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=list(BERT.values())))
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    return inner, BERT


def bytelevel():
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
    )
    inner.add_special_tokens(["<mask>"])  # The last id, as in RoBERTa.
    ends = [(name, inner.token_to_id(name)) for name in ("</s>", "<s>")]
    inner.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.RobertaProcessing(*ends)]
    )
    return inner, ROBERTA


def unigram():
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=special, unk_token="<unk>")
    inner.train_from_iterator(TEXTS, trainer)
    inner.add_special_tokens(["<mask>"])
    ends = [(name, inner.token_to_id(name)) for name in ("<s>", "</s>")]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return inner, ROBERTA


KINDS = {"WordPiece": wordpiece, "WordLevel": wordlevel, "byte-level BPE": bytelevel, "Unigram": unigram}


def whole(kind: str) -> PreTrainedTokenizerFast:
    inner, names = KINDS[kind]()
    inner.enable_padding(pad_id=inner.token_to_id(names["pad_token"]), pad_token=names["pad_token"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **names)


@pytest.fixture(params=KINDS)
def tokenizer(request) -> PreTrainedTokenizerFast:
    return whole(request.param)


def counts_of(tokenizer, texts=TEXTS):
    return np.bincount(np.concatenate(tokenizer(texts)["input_ids"]), minlength=len(tokenizer))


def kept_ids(tokenizer, texts):
    """Return what the tokenizer needs and what ``texts`` are made of, as a search would keep them."""
    counts = counts_of(tokenizer)
    needed, parts = needed_tokens(tokenizer, counts), parts_of_tokens(tokenizer)
    some = counts_of(tokenizer, texts)
    special = tokenizer.all_special_ids
    common = common_tokens(some, needed, parts, coverage=1.0, uncounted=special)
    order = order_tokens(np.zeros(len(counts)), counts, needed=needed, common=common, parts=parts)
    return kept_tokens(order, len(needed) + len(common))


def test_text_whose_tokens_are_all_kept_is_cut_as_before(tokenizer):
    texts = TEXTS[:1] + ["the river", "the old houses near the older river"]
    kept = kept_ids(tokenizer, texts)
    assert len(kept) < len(tokenizer)
    small = shrink(tokenizer, kept)
    for text in texts:
        before = tokenizer(text)["input_ids"]
        assert small(text)["input_ids"] == [kept.index(token) for token in before]
        assert small.tokenize(text) == tokenizer.tokenize(text)


def test_a_saved_smaller_tokenizer_cuts_alike_in_tokenizers_and_in_transformers(tokenizer, tmp_path):
    small = shrink(tokenizer, kept_ids(tokenizer, TEXTS[:1]))
    small.save_pretrained(tmp_path)
    plain, loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), AutoTokenizer.from_pretrained(tmp_path)
    plain.no_padding()
    for text in [*TEXTS, "something else: xyzzy 12!"]:
        expected = small(text)["input_ids"]
        assert plain.encode(text).ids == loaded(text)["input_ids"] == expected
        assert max(expected) < len(small) == plain.get_vocab_size()
    assert (loaded.pad_token_id, loaded.model_max_length) == (small.pad_token_id, 40)


def test_special_tokens_stay_and_stand_where_they_did(tokenizer):
    small = shrink(tokenizer, kept_ids(tokenizer, TEXTS[:1]))
    assert small.special_tokens_map == tokenizer.special_tokens_map
    names = small.convert_ids_to_tokens(small(TEXTS[3])["input_ids"])
    assert (names[0], names[-1]) == (tokenizer.cls_token, tokenizer.sep_token)
    batch = small([TEXTS[0], "the river"], padding=True)
    assert batch["input_ids"][1][-1] == small.pad_token_id == small.backend_tokenizer.padding["pad_id"]


@pytest.mark.parametrize("kind", ["WordPiece", "byte-level BPE", "Unigram"])
def test_a_word_whose_token_is_gone_falls_into_pieces(kind):
    tokenizer = whole(kind)
    small = shrink(tokenizer, kept_ids(tokenizer, TEXTS[:1]))
    before, after = (each.tokenize("riverside runners") for each in (tokenizer, small))
    assert len(after) > len(before) and small.unk_token not in after


def test_words_without_pieces_are_unknown():
    tokenizer = whole("WordLevel")
    small = shrink(tokenizer, kept_ids(tokenizer, TEXTS[:1]))
    assert small.tokenize("the runners") == ["the", "[UNK]"]


def test_no_text_is_unknown_to_bytes():
    tokenizer = whole("byte-level BPE")
    small = shrink(tokenizer, needed_tokens(tokenizer, counts_of(tokenizer)))
    text = "naïve 東京 \N{GRINNING FACE}\n"
    assert small.decode(small(text, add_special_tokens=False)["input_ids"]) == text
    assert len(small) == 256 + 5


def test_merges_stay_only_where_parts_and_product_do():
    tokenizer = whole("byte-level BPE")
    kept = kept_ids(tokenizer, TEXTS[:1])
    model = json.loads(shrink(tokenizer, kept).backend_tokenizer.to_str())["model"]
    before = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = set(model["vocab"])
    expected = [pair for pair in before["merges"] if {*pair, "".join(pair)} <= names]
    assert model["merges"] == expected and 0 < len(expected) < len(before["merges"])


def test_what_is_unknown_to_a_unigram_model_costs_as_before():
    tokenizer = whole("Unigram")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    small = json.loads(shrink(tokenizer, kept_ids(tokenizer, TEXTS[:1])).backend_tokenizer.to_str())["model"]
    assert min(score for _, score in small["vocab"]) == min(score for _, score in model["vocab"])
    assert small["vocab"][small["unk_id"]][0] == "<unk>"


def test_of_single_characters_those_of_the_documents_are_needed():
    tokenizer = whole("WordPiece")
    counts = np.zeros(len(tokenizer), np.int64)
    counts[tokenizer.convert_tokens_to_ids("the")] = 1
    needed = set(tokenizer.convert_ids_to_tokens(needed_tokens(tokenizer, counts)))
    vocabulary = tokenizer.get_vocab()
    expected = {piece for letter in "the" for piece in (letter, f"##{letter}") if piece in vocabulary}
    assert needed == expected | set(BERT.values()) and len(expected) >= 4


def test_common_tokens_are_the_fewest_that_hold_a_coverage():
    counts = np.array([100, 50, 30, 10, 6, 4, 0])
    assert common_tokens(counts, [0], {}, coverage=0.8, uncounted=[0]) == (1, 2)
    assert common_tokens(counts, [0], {}, coverage=0.81, uncounted=[0]) == (1, 2, 3)
    assert common_tokens(counts, [0, 1], {}, coverage=0.5, uncounted=[0]) == ()
    assert common_tokens(counts, [0], {1: (5, 6)}, coverage=0.5, uncounted=[0]) == (1, 6, 5)
    assert len(common_tokens(counts, [], {}, coverage=1.0, uncounted=[0])) == 5


def test_a_special_token_cannot_go(tokenizer):
    kept = [token for token in kept_ids(tokenizer, TEXTS) if token != tokenizer.sep_token_id]
    with pytest.raises(UnsupportedError, match="lose the special token") as caught:
        shrink(tokenizer, kept)
    assert "vocabulary_keep" in caught.value.next_step


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"model": {"type": "Morphemes"}}, "Morphemes"), ({"post_processor": {"type": "Stamp"}}, "Stamp")],
)
def test_a_tokenizer_with_an_unknown_part_is_refused(change, kind):
    data = json.loads(whole("WordPiece").backend_tokenizer.to_str()) | change
    strange = SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: json.dumps(data)), all_special_ids=[])
    for ask in (parts_of_tokens, lambda each: shrink(each, [0]), lambda each: needed_tokens(each, np.ones(9))):
        with pytest.raises(UnsupportedError, match=kind) as caught:
            ask(strange)
        assert "WordPiece" in caught.value.right and "vocabulary_keep" in caught.value.next_step


def test_a_tokenizer_that_is_no_file_is_refused():
    with pytest.raises(UnsupportedError, match="SimpleNamespace"):
        parts_of_tokens(SimpleNamespace(all_special_ids=[]))
