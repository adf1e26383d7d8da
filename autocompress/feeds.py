"""What a model reads: named arrays, the same names for torch modules, ONNX models and TVM libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.errors import UnsupportedError
from autocompress.shape import Pixels

Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Name -> array. Text has ``input_ids`` and ``attention_mask``, both (batch x tokens) int64; images have
``pixel_values`` (batch x channels x height x width) float32. The names are those of transformers' modules."""
Logits: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Feeds], Logits]
"""Feeds -> logits (batch x classes)."""
Ids: TypeAlias = npt.NDArray[np.int64]

IDS, MASK, PIXELS = "input_ids", "attention_mask", "pixel_values"


@dataclass(frozen=True)
class Feed:
    """One array that a model reads.

    Attributes:
        name: Key of ``Feeds``.
        dimensions: The first is the batch; a name (``batch``, ``tokens``) stands for any number.
        dtype: A name that numpy knows.
    """

    name: str
    dimensions: tuple[int | str, ...]
    dtype: str

    @property
    def is_sequence(self) -> bool:
        """Whether it is as long as its text, and padded to what was compiled; else its dimensions are fixed."""
        return self.name in {IDS, MASK}

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``read_feeds`` reads a list of them."""
        return {**asdict(self), "dimensions": list(self.dimensions)}

    def sized(self, **sizes: int) -> tuple[int, ...]:
        """Return the dimensions with numbers in the place of names, e.g. ``sized(batch=1, tokens=64)``."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.dimensions)


TEXT: tuple[Feed, ...] = tuple(Feed(name, ("batch", "tokens"), "int64") for name in (IDS, MASK))


def feeds_of(pixels: Pixels | None) -> tuple[Feed, ...]:
    """Return what a model reads that reads such images; ``None``: text."""
    if pixels is None:
        return TEXT
    return (Feed(PIXELS, ("batch", pixels.channels, pixels.height, pixels.width), "float32"),)


def read_feeds(listed: Iterable[Mapping[str, Any]]) -> tuple[Feed, ...]:
    """Read what ``Feed.to_dict`` wrote."""
    return tuple(Feed(each["name"], tuple(each["dimensions"]), each["dtype"]) for each in listed)


def of_text(ids: Ids, mask: Ids | None = None) -> Feeds:
    """Return the feeds of token ids (batch x tokens); by default there is no padding among them."""
    return {IDS: ids, MASK: np.ones_like(ids) if mask is None else mask}


def drawn(feeds: Sequence[Feed], *, vocabulary: int, seed: int, **sizes: int) -> Feeds:
    """Draw an input: ids below ``vocabulary``, none of them padding, and pixels from a normal distribution."""
    random = np.random.default_rng(seed)
    found: dict[str, npt.NDArray[Any]] = {}
    for feed in feeds:
        dimensions = feed.sized(**sizes)
        if feed.name == IDS:
            found[feed.name] = random.integers(0, vocabulary, dimensions, dtype=np.int64)
        elif feed.name == MASK:
            found[feed.name] = np.ones(dimensions, np.int64)
        else:
            found[feed.name] = random.standard_normal(dimensions, dtype=np.float32)
    return found


def check_feeds(given: Feeds, feeds: Sequence[Feed]) -> None:
    """Refuse what a model cannot read.

    Raises:
        UnsupportedError: A feed is missing or not one of the model's, longer than its tokens, or of other dimensions.
    """
    names = [feed.name for feed in feeds]
    if set(given) != set(names):
        raise UnsupportedError(
            f"A model that reads {' and '.join(names)} is given {' and '.join(given) or 'nothing'}.",
            right="It is given what it reads, each array by its name.",
            next_step="Use a model of this task, or prepare the inputs as its manifest says under feeds.",
        )
    for feed in feeds:
        _check_dimensions(feed, given[feed.name].shape)


def _check_dimensions(feed: Feed, found: tuple[int, ...]) -> None:
    if feed.is_sequence:
        tokens = feed.dimensions[1]
        if isinstance(tokens, int) and found[1] > tokens:
            raise UnsupportedError(
                f"An input has {found[1]} tokens.",
                right=f"The library was compiled for at most {tokens}.",
                next_step="Truncate the input, or export the model for more tokens.",
            )
    elif len(found) != len(feed.dimensions) or found[1:] != feed.dimensions[1:]:
        raise UnsupportedError(
            f"{feed.name} has the dimensions {_listed(found)}.",
            right=f"The model reads {_listed(('any number', *feed.dimensions[1:]))}.",
            next_step="Resize the images to what the model reads, or export the model for images of this size.",
        )


def _listed(dimensions: Sequence[object]) -> str:
    return " x ".join(map(str, dimensions))
