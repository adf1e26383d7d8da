"""Words of a text, words that carry no meaning of their own, and the words among the pieces of a tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autocompress.errors import UnsupportedError

_WORD = re.compile(r"(\w+)")

_FUNCTION_WORDS = """
a about above after again against ain all also although always am among an and another any anybody anyone anything
are aren around as at be because been before being below between both but by can cannot could couldn d did didn do
does doesn doing don done down during each either else ever every everybody everyone everything few for from further
had hadn has hasn have haven having he hence her here hers herself him himself his how however i if in into is isn
it its itself just least less ll m ma many may me might mightn mine more most much must mustn my myself needn
neither never no nobody none nor not nothing now o of off on once only onto or other others ought our ours ourselves
out over own per quite rather re s same several shall shan she should shouldn since so some somebody someone
something still such t than that the their theirs them themselves then there therefore these they this those though
through throughout thus to together too toward towards under unless until up upon us ve very was wasn we were weren
what whatever when whenever where wherever whether which while who whoever whom whose why will with within without
won would wouldn y yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English function words in lower case, and what is left of their contractions."""


def parts_of(text: str) -> list[str]:
    """Cut a text into parts that make it up: those at odd places are words, the others what stands between them."""
    return _WORD.split(text)


def content_words(parts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the place and the word of ``parts_of`` a text wherever it ``has_content``."""
    yield from ((place, word) for place, word in enumerate(parts) if place % 2 and has_content(word))


def has_content(word: str) -> bool:
    """Tell whether a word is of letters alone and no stop-word."""
    return word.isalpha() and word.lower() not in STOP_WORDS


def vocabulary_words(tokenizer: Any) -> list[str | None]:
    """Return the word that each token of a vocabulary is; ``None`` for special tokens and for pieces inside words.

    WordPiece marks what is inside a word (``##``), byte-level byte pairs and unigrams what begins one (by a space).

    Raises:
        UnsupportedError: The tokenizer is not of ``tokenizers``.
    """
    begins = _begins(tokenizer)
    special = set(tokenizer.all_special_ids)
    found: list[str | None] = [None] * (max(tokenizer.get_vocab().values()) + 1)
    for piece, token in tokenizer.get_vocab().items():
        if token not in special and begins(piece):
            found[token] = tokenizer.convert_tokens_to_string([piece]).strip() or None
    return found


def _begins(tokenizer: Any) -> Any:
    """Return a function that tells whether a piece begins a word."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedError(
            f"The tokenizer is a {type(tokenizer).__name__}, which does not say where its pieces lie in a text.",
            right="Text is augmented with a fast tokenizer (tokenizer.json).",
            next_step="Save a fast tokenizer with the model, or leave augmentation out.",
        )
    data = json.loads(backend.to_str())
    inside = data["model"].get("continuing_subword_prefix")
    if inside:
        return lambda piece: not piece.startswith(inside)
    marks = tuple(_marks(data["pre_tokenizer"]))
    return lambda piece: piece.startswith(marks) if marks else True


def _marks(part: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a pre-tokenizer, or one inside it, writes for the space before a word."""
    if part is None:
        return
    if part["type"] == "ByteLevel":
        yield "\u0120"
    if part["type"] == "Metaspace":
        yield part["replacement"]
    for each in part.get("pretokenizers") or ():
        yield from _marks(each)
