from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.evaluation.sampling import hold_out, stratified_order

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


@given(LABELS, st.integers(0, 5))
def test_an_order_holds_each_index_once(labels: list[str], seed: int) -> None:
    assert sorted(stratified_order(labels, seed=seed)) == list(range(len(labels)))


@given(LABELS, st.integers(0, 5))
def test_in_every_prefix_each_class_has_its_share(labels: list[str], seed: int) -> None:
    order, total = stratified_order(labels, seed=seed), Counter(labels)
    for length in range(1, len(order) + 1):
        seen = Counter(labels[index] for index in order[:length])
        for label, count in total.items():
            # Up to any rank x a class has x * count members to within 1/2, so all C have x * N to within C/2; among
            # members of equal rank the cut may fall anywhere.
            share = count / len(labels)
            assert abs(seen[label] - length * share) <= 1.5 + share * len(total) / 2


def test_the_seed_alone_decides_the_order() -> None:
    labels = list("ab" * 50)
    assert stratified_order(labels, seed=1) == stratified_order(labels, seed=1)
    assert stratified_order(labels, seed=1) != stratified_order(labels, seed=2)


@given(LABELS, st.sampled_from([0.1, 0.2, 0.4]), st.integers(0, 5))
def test_what_is_held_out_and_the_rest_make_up_the_whole(labels: list[str], fraction: float, seed: int) -> None:
    texts = [f"text {index}" for index in range(len(labels))]
    rest, held = hold_out(texts, labels, fraction=fraction, seed=seed)
    assert sorted(rest + held) == list(range(len(labels)))
    assert len(held) == round(fraction * len(labels))


@given(st.lists(st.sampled_from(["p", "q", "r", "s", "t"]), min_size=2, max_size=60), st.integers(0, 5))
def test_equal_texts_stay_on_one_side(texts: list[str], seed: int) -> None:
    rest, held = hold_out(texts, ["x"] * len(texts), fraction=0.3, seed=seed)
    assert not {texts[index] for index in rest} & {texts[index] for index in held}


@pytest.mark.parametrize("size", [10, 40])
def test_each_class_gives_its_share(size: int) -> None:
    labels = ["a"] * size + ["b"] * (3 * size)
    _, held = hold_out([str(index) for index in range(4 * size)], labels, fraction=0.1, seed=0)
    assert Counter(labels[index] for index in held) == {"a": size // 10, "b": 3 * size // 10}
