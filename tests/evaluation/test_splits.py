from __future__ import annotations

import pytest

from autocompress.errors import SourceError
from autocompress.evaluation.splits import choose_splits


def choose(
    *names: str, train: str | None = None, validation: str | None = None, test: str | None = None
) -> dict[str, str]:
    return choose_splits(names, where="somewhere", train=train, validation=validation, test=test)


@pytest.mark.parametrize("train", ["train.tsv", "r8-train.tab", "Training_set.csv", "train"])
@pytest.mark.parametrize("validation", ["dev.tsv", "valid.jsonl", "my.validation.csv", "val"])
@pytest.mark.parametrize("test", ["test.tsv", "r8-test.tab"])
def test_splits_are_recognised_by_words_in_names(train: str, validation: str, test: str) -> None:
    assert choose(test, train, validation) == {"train": train, "validation": validation, "test": test}


def test_parts_of_words_say_nothing() -> None:
    assert choose("train.csv", "latest.csv", "trains.csv") == {"train": "train.csv"}


def test_names_that_are_given_need_no_words() -> None:
    assert choose("a.csv", "b.csv", train="a.csv", test="b.csv") == {"train": "a.csv", "test": "b.csv"}


def test_the_test_split_that_belongs_to_the_train_split_is_taken() -> None:
    names = ("r52-test.tab", "r52-train.tab", "r8-test.tab", "r8-train.tab")
    assert choose(*names, train="r8-train.tab") == {"train": "r8-train.tab", "test": "r8-test.tab"}


def test_a_single_file_is_the_train_split() -> None:
    assert choose("reviews.csv") == {"train": "reviews.csv"}


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("a-train.csv", "b-train.csv"), "several train splits"),
        (("a.csv", "b.csv"), "no train split"),
        ((), "no train split"),
        (("train.csv", "x.dev.csv", "y.dev.csv", "dev.csv", "val.csv"), "several validation splits"),
    ],
)
def test_what_is_not_clear_is_asked_back(names: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint) as caught:
        choose(*names)
    assert "task.data." in caught.value.next_step


def test_a_name_that_is_not_there_suggests_the_nearest() -> None:
    with pytest.raises(SourceError, match=r"no split 'trian\.csv'.*Did you mean 'train\.csv'\?"):
        choose("train.csv", "test.csv", train="trian.csv")


def test_one_file_cannot_be_two_splits() -> None:
    with pytest.raises(SourceError, match="'train.csv' of somewhere is to be test and another split"):
        choose("train.csv", "test.csv", test="train.csv")
