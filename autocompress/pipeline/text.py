"""Text that students learn from beside labelled documents: a corpus, tokens to guess in it, documents varied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compression.recipes.augmentation import Augmentation, augment
from autocompress.compression.recipes.candidate_words import CandidateWords, mask_id_of
from autocompress.compression.recipes.masked_lm import fit_head, guesses
from autocompress.compression.recipes.masking import MaskedBatch, Masking, mask_tokens, rarity
from autocompress.config import RunConfig
from autocompress.devices.paths import cache_folder, write_text
from autocompress.errors import StorageError
from autocompress.evaluation.datasets import Split
from autocompress.evaluation.text import Corpus, TextBatch, TextSpec, cut, load_text
from autocompress.evaluation.text_classification import TextClassification
from autocompress.models.language_head import LanguageHead, new_head, read_head
from autocompress.models.load import adapter_of
from autocompress.training.loop import repeat

LEAST_RIGHT = 0.3
"""Share of masked tokens that a head has to guess right for its guesses to stand in the place of words. One that
guessed 0.17 named function words and signs (decision 0013)."""
_ASKED = 16
"""Batches on which that is found out."""
_VERSION = 1
"""Of how documents are varied; another one makes every kept split anew."""


def corpus_of(config: RunConfig, task: TextClassification) -> Corpus:
    """Return the text of a run: what ``task.text`` names, cut to ``max_tokens``, else the training documents.

    Of the training documents, places in the corpus are those in the training split.

    Raises:
        SourceError: The text is missing, unreadable or empty.
        UnsupportedError: It cannot be cut with this tokenizer.
    """
    if config.task.text is None:
        return Corpus(task.dataset.train.texts, task.tokenizer, max_tokens=task.max_tokens)
    texts = load_text(TextSpec(**config.task.text.model_dump()), cache=cache_folder())
    texts = cut(texts, task.tokenizer, max_tokens=task.max_tokens)
    return Corpus(texts, task.tokenizer, max_tokens=task.max_tokens)


def text_batches(corpus: Corpus, steps: int, *, batch_size: int, seed: int) -> Iterator[TextBatch]:
    """Yield ``steps`` batches of documents, shuffled anew for each pass."""
    return repeat(lambda epoch: corpus.batches(batch_size=batch_size, seed=seed * 1000 + epoch), steps=steps)


def masked_batches(
    corpus: Corpus, steps: int, *, batch_size: int, seed: int, settings: Masking | None = None
) -> Iterator[MaskedBatch]:
    """Yield ``steps`` batches with tokens to guess, drawn anew for each batch as DistilBERT draws them.

    Raises:
        UnsupportedError: The tokenizer has no mask token.
    """
    tokenizer, masking, mask_id = corpus.tokenizer, settings or Masking(), mask_id_of(corpus.tokenizer)
    weights = rarity(corpus.token_counts(len(tokenizer)), tokenizer.all_special_ids, masking)
    generator = torch.Generator().manual_seed(seed)
    for batch in text_batches(corpus, steps, batch_size=batch_size, seed=seed):
        yield mask_tokens(
            batch.input_ids, batch.attention_mask, weights, mask_id=mask_id, settings=masking, generator=generator
        )


def language_head(
    folder: Path,
    encoder: nn.Module,
    corpus: Corpus,
    *,
    steps: int,
    batch_size: int = 32,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> LanguageHead:
    """Return the head of a model folder, or a new one where it has none, fitted to the text on the frozen encoder.

    A head that is read may need it too: where the encoder was trained on without it, it guesses worse than one that
    knows how frequent tokens are. Tokens are drawn evenly, as for BERT: a head that was fitted to rare ones is worse at
    all others (decision 0013 has both).

    Args:
        folder: Of the model as it came, before it was fine-tuned.
        encoder: A classifier whose encoder is that model's.
        corpus: What is guessed.
        steps: Of the fit; 0 takes a head as it was read.
        batch_size: Documents a step.
        seed: Of the head, the order of documents and the tokens to guess.
        on_step: Told (step, steps, loss).

    Raises:
        SourceError, UnsupportedError: As ``read_head`` and ``masked_batches``.
    """
    head = read_head(folder)
    if head is None:
        generator = torch.Generator().manual_seed(seed)
        vocabulary = adapter_of(encoder).shape(encoder).vocabulary
        head = new_head(encoder, generator=generator, counts=corpus.token_counts(vocabulary))
    if steps > 0:
        evenly = Masking(smoothing=0.0)
        batches = masked_batches(corpus, steps, batch_size=batch_size, seed=seed, settings=evenly)
        fit_head(head, encoder, batches, steps=steps, seed=seed, on_step=on_step)
    return head


def head_of_checkpoint(folder: Path, encoder: nn.Module, corpus: Corpus, *, seed: int = 0) -> LanguageHead | None:
    """Return the head of a model folder to vary documents by, if it has one that guesses well enough; else ``None``.

    Args:
        folder: Of the model.
        encoder: A classifier whose encoder is that model's.
        corpus: Whose tokens it is to guess, of some documents.
        seed: Of these.

    Raises:
        SourceError, UnsupportedError: As ``read_head`` and ``masked_batches``.
    """
    head = read_head(folder)
    if head is None:
        return None
    batches = masked_batches(corpus, _ASKED, batch_size=32, seed=seed, settings=Masking(smoothing=0.0))
    _, right = guesses(head, encoder, batches)
    return head if right >= LEAST_RIGHT else None


def augmented_split(
    split: Split,
    *,
    encoder: nn.Module,
    head: LanguageHead | None,
    tokenizer: Any,
    settings: Augmentation,
    cache: Path,
    on_batch: Callable[[int, int], None] | None = None,
) -> Split:
    """Return a split's documents, each followed by its variants with the same label; made once, then kept on disk.

    Args:
        split: Of documents.
        encoder: See ``CandidateWords``.
        head: Of the encoder, or ``None``.
        tokenizer: Of both.
        settings: How documents are varied.
        cache: Folder for ``augmented/<key>.jsonl``; the key is a hash of everything that decides what is in it.
        on_batch: Told (masked documents done, all of them).

    Raises:
        UnsupportedError: As ``CandidateWords``.
        StorageError: The folder cannot be written.
    """
    own = {name: array for name, array in adapter_of(encoder).weights(encoder).items() if not name.startswith("head.")}
    guessing = {} if head is None else head.state_dict()
    key = _digest(
        json.dumps([_VERSION, split.texts, split.labels, asdict(settings), tokenizer.backend_tokenizer.to_str()]),
        own | {f"language.{name}": tensor.numpy() for name, tensor in guessing.items()},
    )
    path = cache / "augmented" / f"{key}.jsonl"
    if (kept := _read(path)) is not None:
        return kept
    candidates = CandidateWords(encoder, head, tokenizer, settings, on_batch=on_batch)(split.texts)
    made = augment(split.texts, candidates, settings)
    found = Split(tuple(text for _, text in made), tuple(split.labels[index] for index, _ in made))
    _write(path, found)
    return found


def _digest(text: str, tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    hashed = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        hashed.update(f"{name} {array.dtype} {array.shape}".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()[:32]


def _read(path: Path) -> Split | None:
    """Return what is kept at ``path``; ``None`` if nothing is, or if it is damaged."""
    try:
        count, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        if count != {"documents": len(rows)}:
            return None
        return Split(tuple(str(row["text"]) for row in rows), tuple(int(row["label"]) for row in rows))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, split: Split) -> None:
    """Write a file whole or not at all, whoever else writes it."""
    lines: list[dict[str, object]] = [{"documents": len(split)}]
    lines += [{"text": text, "label": label} for text, label in zip(split.texts, split.labels, strict=True)]
    try:
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}).",
            right=f"Varied documents are kept there; they need {sum(map(len, split.texts)) / 2**20:.0f} MiB or more.",
            next_step="Free space, or set AUTOCOMPRESS_HOME to another place.",
        ) from error
