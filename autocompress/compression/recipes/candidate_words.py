"""What may stand in the place of a word, as an encoder and its language head see it (TinyBERT's, Jiao et al. 2020).

If a word is a single piece of the tokenizer, its candidates are what a masked language model guesses in its place: it
reads [masked document] [SEP] [document] where the tokenizer knows pairs, and of its first M guesses those count that
begin a word. If it is of several pieces, they are the M words of most similar meaning, by the cosine of their vectors.
Without either, the word itself is its only candidate.

Two things differ from the original. Vectors are not GloVe's: a word's is the mean of the rows of its pieces in the
encoder's own token table, and words are those of the documents. And both documents of a pair have the first token type,
the only one that models of this package read.

An encoder that guesses badly names function words and signs wherever it is asked (decision 0013). Without a language
head, a word of one piece has the nearest words of one piece instead: that is this package's own, not TinyBERT's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.compression.recipes.augmentation import Augmentation
from autocompress.compression.recipes.masked_lm import last_hidden
from autocompress.compression.recipes.words import content_words, has_content, parts_of, vocabulary_words
from autocompress.errors import UnsupportedError
from autocompress.models.language_head import LanguageHead, token_rows
from autocompress.models.load import adapter_of
from autocompress.training.batches import TokenBatch
from autocompress.training.loop import reading

_AT_ONCE = 1024
"""Documents that are tokenised, and words whose neighbours are looked up, at once."""


@dataclass(frozen=True)
class _Word:
    """A word that may be replaced.

    Attributes:
        text: The document.
        place: In ``parts_of`` it.
        word: As it stands there.
        ids: What the model reads: the document, twice where the tokenizer knows pairs.
        positions: Of the word's pieces in ``ids``, where it comes first.
        whole: Whether it is one piece, which is nothing but the word.
    """

    text: str
    place: int
    word: str
    ids: Sequence[int]
    positions: Sequence[int]
    whole: bool


_Found: TypeAlias = dict[tuple[str, int], tuple[str, ...]]
"""Document and place -> candidates, perhaps none."""


class CandidateWords:
    """What may stand in the place of words, as an encoder and its language head see it.

    Args:
        encoder: A classifier of the family; as it was before it was fine-tuned, if it can be had.
        head: Of the encoder; ``None``: nothing is guessed.
        tokenizer: A fast one; with a mask token, if there is a head.
        settings: How many there may be.
        batch_size: Masked documents that the encoder reads at once.
        on_batch: Told (masked documents done, all of them) after each batch.

    Raises:
        UnsupportedError: The tokenizer does not say where its pieces lie in a text, or has no mask token.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: LanguageHead | None,
        tokenizer: Any,
        settings: Augmentation,
        *,
        batch_size: int = 64,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        self._encoder, self._head, self._tokenizer = encoder, head, tokenizer
        self._most, self._batch_size, self._on_batch = settings.candidates, batch_size, on_batch
        self._words = vocabulary_words(tokenizer)
        self._mask_id = 0 if head is None else mask_id_of(tokenizer)
        self._longest = min(tokenizer.model_max_length, adapter_of(encoder).shape(encoder).positions)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> dict[str, dict[int, tuple[str, ...]]]:
        """Return the candidates for each distinct document; words beyond what the encoder reads have none."""
        found: dict[str, dict[int, tuple[str, ...]]] = {text: {} for text in texts}
        words = self._read(list(found))
        whole, several = ([word for word in words if word.whole is which] for which in (True, False))
        corpus = {word.lower() for text in found for _, word in content_words(parts_of(text))}
        with reading(self._encoder):
            candidates = self._near(several, corpus)
            if self._head is None:
                candidates |= self._near(whole, {name.lower() for name in self._words if name and has_content(name)})
            else:
                candidates |= self._guessed(whole, self._head)
        for word in words:
            found[word.text][word.place] = candidates[word.text, word.place] or (word.word,)
        return found

    def _read(self, texts: Sequence[str]) -> list[_Word]:
        """Find the words of all texts, and the pieces of each."""
        add = self._tokenizer.num_special_tokens_to_add
        pairs = texts if add(pair=True) > add(pair=False) else None
        found = []
        for start in range(0, len(texts), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            second = None if pairs is None else list(pairs[part])
            encoded = self._tokenizer(list(texts[part]), second, truncation=True, max_length=self._longest)
            for text, encoding in zip(texts[part], encoded.encodings, strict=True):
                found += list(_words_of(text, encoding))
        return found

    def _guessed(self, words: Sequence[_Word], head: LanguageHead) -> _Found:
        """Mask each word alone and return the guesses that begin a word, the most probable first."""
        found: _Found = {}
        ordered = sorted(words, key=lambda word: len(word.ids))
        rows = token_rows(self._encoder)
        for start in range(0, len(ordered), self._batch_size):
            batch = ordered[start : start + self._batch_size]
            hidden = last_hidden(self._encoder, self._masked(batch))
            at = hidden[torch.arange(len(batch)), [word.positions[0] for word in batch]]
            tokens = head(at, rows).topk(self._most).indices.tolist()
            for word, ids in zip(batch, tokens, strict=True):
                names = (self._words[token] for token in ids if token < len(self._words))
                found[word.text, word.place] = tuple(name for name in names if name is not None)
            if self._on_batch is not None:
                self._on_batch(start + len(batch), len(ordered))
        return found

    def _masked(self, words: Sequence[_Word]) -> TokenBatch:
        """Pad the documents of ``words``, each with its word masked where it comes first."""
        longest = max(len(word.ids) for word in words)
        input_ids = torch.full((len(words), longest), self._tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, word in enumerate(words):
            input_ids[row, : len(word.ids)] = torch.tensor(word.ids)
            input_ids[row, word.positions[0]] = self._mask_id
            attention_mask[row, : len(word.ids)] = 1
        return TokenBatch(input_ids, attention_mask)

    def _near(self, words: Sequence[_Word], among: set[str]) -> _Found:
        """Return, of the words ``among``, those whose vectors have the largest cosine with each word's, but itself."""
        asked = sorted({word.word.lower() for word in words})
        others = sorted(among.union(asked))
        vectors, index = self._vectors(others), {word: row for row, word in enumerate(others)}
        nearest: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            own = torch.tensor([index[word] for word in part])
            cosines = vectors[own] @ vectors.T
            cosines[torch.arange(len(part)), own] = -torch.inf
            rows = cosines.topk(min(self._most, len(others) - 1)).indices.tolist()
            nearest |= {word: tuple(others[row] for row in near) for word, near in zip(part, rows, strict=True)}
        return {(word.text, word.place): nearest[word.word.lower()] for word in words}

    def _vectors(self, words: Sequence[str]) -> Tensor:
        """Return the mean row of each word's pieces, inside a text, at length 1 (words x embedding channels)."""
        if not words:
            return torch.empty(0, 0)
        encoded = self._tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        bags = [torch.tensor(ids) for ids in encoded]
        starts = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        means = nn.functional.embedding_bag(torch.cat(bags), token_rows(self._encoder), starts, mode="mean")
        return nn.functional.normalize(means, dim=-1)


def mask_id_of(tokenizer: Any) -> int:
    """Return the id of a tokenizer's mask token.

    Raises:
        UnsupportedError: It has none.
    """
    if tokenizer.mask_token_id is None:
        raise UnsupportedError(
            "The model's tokenizer has no mask token.",
            right="Tokens are guessed where the mask token stands in their place.",
            next_step="Choose an encoder that was trained as a masked language model.",
        )
    return int(tokenizer.mask_token_id)


def _words_of(text: str, encoding: Any) -> Iterator[_Word]:
    """Yield the words of a text that may be replaced and were read, with the positions of their pieces."""
    parts, ids = parts_of(text), encoding.ids
    starts = [0, *accumulate(map(len, parts))]
    places = zip(encoding.sequence_ids, encoding.offsets, strict=True)
    spans = [(position, *span) for position, (sequence, span) in enumerate(places) if sequence == 0]
    for place, word in content_words(parts):
        begin, end = starts[place], starts[place + 1]
        pieces = [span for span in spans if span[1] < end and span[2] > begin]
        if pieces:
            whole = len(pieces) == 1 and text[pieces[0][1] : pieces[0][2]].strip() == word
            yield _Word(text, place, word, ids, [piece[0] for piece in pieces], whole)
