"""What a model is for, as a run file says it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from autocompress.devices.validation import Section
from autocompress.search_space import Count

_SOURCE = re.compile(r"hub:[^\s@]+(@\S+)?|wheel:[\w.-]+==[\w.!+-]+/\S+|(?!\w+:).+|[A-Za-z]:[\\/].*")


def _check_source(value: str) -> str:
    if not _SOURCE.fullmatch(value):
        raise ValueError("Write a local folder, hub:NAME or wheel:NAME==VERSION/path/inside.")
    return value


Source = Annotated[str, AfterValidator(_check_source)]


def _check_text_source(value: str) -> str:
    if value.startswith("hub:"):
        raise ValueError("Text is read from a local folder or file, or from wheel:NAME==VERSION/path/inside.")
    return value


TextSource = Annotated[Source, AfterValidator(_check_text_source)]
IMAGES = "image-classification"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Data(Section):
    """Labelled text or images."""

    source: Source = Field(description="A local folder or file, hub:NAME[@revision] or wheel:NAME==VERSION/path.")
    sha256: Sha256 | None = Field(
        default=None, description="64 hexadecimal digits: of the wheel, or of a source that is one file."
    )
    train: str | None = Field(default=None, description="File or hub split to fit on; by default known by its name.")
    validation: str | None = Field(default=None, description="The one to choose by; cut out of train if there is none.")
    test: str | None = Field(default=None, description="The one to report.")
    text: str | None = Field(default=None, description="Column of the texts; recognised by name if left out.")
    label: str | None = Field(default=None, description="Column of the labels; recognised by name if left out.")
    skip_rows: int = Field(default=0, ge=0, description="Rows to leave out after the header row.")


class Text(Section):
    """Text without labels, of the kind that the task's documents are of."""

    source: TextSource = Field(description="A local file, a local folder of .txt files, or wheel:NAME==VERSION/path.")
    sha256: Sha256 | None = Field(
        default=None, description="64 hexadecimal digits: of the wheel, or of a source that is one file."
    )
    unit: Literal["line", "paragraph"] = Field(
        default="line", description="What is a document: each line, or each run of lines up to an empty one."
    )


class Task(Section):
    """What the model is for, and how well it does it."""

    kind: Literal["text-classification", "image-classification"] = Field(
        default="text-classification", description="What examples are: documents, or images."
    )
    data: Data = Field(description="Labelled examples.")
    text: Text | None = Field(
        default=None, description="Text without labels to learn from; by default the training documents serve."
    )
    metric: Literal["accuracy", "macro_f1"] = Field(default="accuracy", description="What counts as good.")
    max_tokens: Count = Field(default=64, description="Longest sequence, in tokens; latency is measured at it.")
    validation_fraction: float = Field(
        default=0.1, gt=0, lt=0.5, description="Of the training documents, where validation is cut out of them."
    )
    train_limit: Count | None = Field(default=None, description="Use at most this many training documents.")
    eval_limit: Count | None = Field(default=None, description="Evaluate on at most this many documents of a split.")


OF_TEXT: Mapping[str, tuple[str, ...]] = {
    "task": ("max_tokens", "text"),
    "task.data": ("text", "label", "skip_rows"),
    "search": ("variants",),
    "search.space": ("vocabulary_keep", "vocabulary_coverage", "embedding_bits", "embedding_rank", "positions"),
}
"""Section -> keys that say nothing of images: their tokens are patches, and as many as the model cuts them into."""


def keys_of_text(run: Any) -> Iterator[str]:
    """Yield the dotted keys of ``OF_TEXT`` that a run file sets."""
    for path, names in OF_TEXT.items():
        section = run
        for name in path.split("."):
            section = getattr(section, name)
        yield from (f"{path}.{name}" for name in names if name in section.model_fields_set)


def without_text(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run file without the keys of ``OF_TEXT``."""
    kept: dict[str, Any] = dict(values)
    for path, names in OF_TEXT.items():
        section = kept
        for name in path.split("."):
            section[name] = dict(section[name])
            section = section[name]
        for name in names:
            section.pop(name, None)
    return kept
