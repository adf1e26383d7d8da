import math
import random

import pytest

from autocompress.compression.recipes.augmentation import Augmentation, augment, variants
from autocompress.compression.recipes.words import parts_of


def draw(text, candidates, settings):
    return variants(parts_of(text), candidates, settings, random.Random(0))


def test_the_document_comes_first_and_each_variant_once():
    found = draw("a fine film", {3: ("good", "bad")}, Augmentation(variants=200))
    assert found[0] == "a fine film" and sorted(found[1:]) == ["a bad film", "a good film"]


def test_a_word_whose_only_candidate_is_itself_stays():
    assert draw("a fine film", {3: ("fine",), 5: ("film",)}, Augmentation(variants=50)) == ["a fine film"]


def test_nothing_but_the_replaced_words_changes():
    text = "  Really -- a FINE (new) film's end .\n"
    candidates = dict.fromkeys((5, 7), ("x",))
    for variant in draw(text, candidates, Augmentation(variants=100)):
        words = parts_of(variant)
        assert [w for p, w in enumerate(words) if p not in candidates] == [
            w for p, w in enumerate(parts_of(text)) if p not in candidates
        ]


def test_words_are_replaced_with_the_probability_that_was_asked_for():
    # 30 words: that a draw replaces none, and is not new, happens 0.6 ** 30 = 2e-7 of the time.
    words, settings = 30, Augmentation(variants=400)
    text = " ".join(f"w{number}" for number in range(words))
    found = draw(text, {2 * number + 1: ("other",) for number in range(words)}, settings)
    assert len(found) == settings.variants + 1
    replaced = sum(variant.split().count("other") for variant in found[1:])
    count = words * settings.variants
    assert abs(replaced / count - 0.4) < 4 * math.sqrt(0.4 * 0.6 / count)


def test_candidates_are_drawn_evenly():
    candidates = [f"c{number}" for number in range(5)]
    found = draw("word " * 200, {2 * n + 1: candidates for n in range(200)}, Augmentation(variants=50, replace=1.0))
    drawn = " ".join(found[1:]).split()
    for candidate in candidates:
        assert abs(drawn.count(candidate) / len(drawn) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(drawn))


def test_what_is_made_of_a_document_depends_on_seed_and_place_alone():
    candidates = {text: {1: [f"c{n}" for n in range(50)]} for text in ("one", "two")}
    one = augment(["one", "two"], candidates, Augmentation(variants=5, replace=1.0))
    assert one == augment(["one", "two"], candidates, Augmentation(variants=5, replace=1.0))
    other = augment(["two", "two"], candidates, Augmentation(variants=5, replace=1.0))
    assert [text for index, text in one if index == 1] == [text for index, text in other if index == 1]
    assert other != augment(["two", "two"], candidates, Augmentation(variants=5, replace=1.0, seed=1))
    assert [index for index, _ in one] == sorted(index for index, _ in one)
    # The same document twice is varied in two ways.
    assert [text for index, text in other if index == 0] != [text for index, text in other if index == 1]


@pytest.mark.parametrize("count", [0, 1])
def test_without_variants_there_is_the_document(count):
    assert draw("a fine film", {}, Augmentation(variants=count)) == ["a fine film"]
