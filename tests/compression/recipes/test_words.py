import pytest

from autocompress.compression.recipes.words import STOP_WORDS, content_words, parts_of, vocabulary_words
from autocompress.errors import UnsupportedError
from tests.evaluation.test_tokenizers import KINDS, whole


def test_parts_make_up_the_text_and_words_stand_at_odd_places():
    text = "  It's a well-made film, from 1930s-era Mexico; naïve!\n"
    parts = parts_of(text)
    assert "".join(parts) == text
    assert parts[1::2] == ["It", "s", "a", "well", "made", "film", "from", "1930s", "era", "Mexico", "naïve"]


def test_words_with_a_meaning_are_of_letters_alone_and_no_function_words():
    parts = parts_of("It isn't THE 1930s_film that we've seen before: naïve, R2D2")
    assert [word for _, word in content_words(parts)] == ["seen", "naïve"]
    assert all(parts[place] == word for place, word in content_words(parts))
    assert {"the", "not", "and", "t", "ve", "isn"} <= STOP_WORDS and not STOP_WORDS & {"good", "film", "bad", "old"}


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_a_vocabulary_are_the_pieces_that_begin_one(kind):
    tokenizer = whole(kind)
    words = vocabulary_words(tokenizer)
    assert len(words) == len(tokenizer)
    for piece, token in tokenizer.get_vocab().items():
        begins = {"WordPiece": not piece.startswith("##"), "WordLevel": True}.get(kind, piece[0] in "Ġ▁")
        named = begins and token not in tokenizer.all_special_ids and piece not in "Ġ▁"
        assert words[token] == (piece.lstrip("Ġ▁") if named else None)
    assert {"river", "old"} <= set(words)


def test_a_tokenizer_that_does_not_know_places_is_refused():
    with pytest.raises(UnsupportedError, match="object") as caught:
        vocabulary_words(object())
    assert "fast" in caught.value.right
