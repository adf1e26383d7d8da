"""TinyBERT's data augmentation: each document again and again, with words in the place of others (Jiao et al. 2020).

A word of letters that is no stop-word may be replaced, by what ``candidate_words`` finds for it. N times, each such
word of a document draws a candidate, which takes its place with probability p; what is new is kept. The original writes
out words in lower case with spaces between them; here everything but the replaced words stays as it was.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from autocompress.compression.recipes.words import parts_of

Candidates: TypeAlias = Mapping[int, Sequence[str]]
"""Place in ``parts_of`` a document -> words that may stand there, at least one."""


@dataclass(frozen=True)
class Augmentation:
    """How documents are varied.

    Attributes:
        variants: N, how often each is drawn anew; equal draws count once. The original's 10 to 30, by task.
        candidates: M, how many words may take the place of one, at most.
        replace: p, the probability that one does (0 to 1).
        seed: Of the draws.
    """

    variants: int = 20
    candidates: int = 15
    replace: float = 0.4
    seed: int = 0


def variants(parts: Sequence[str], candidates: Candidates, settings: Augmentation, draws: random.Random) -> list[str]:
    """Return a document and what was made of it, each once, the document itself first.

    Args:
        parts: Of the document.
        candidates: For those of its words that may be replaced.
        settings: How often, and how likely.
        draws: All that is random.
    """
    found = {"".join(parts): None}
    for _ in range(settings.variants):
        drawn = list(parts)
        for place, words in candidates.items():
            word = draws.choice(words)
            if draws.random() < settings.replace:
                drawn[place] = word
        found.setdefault("".join(drawn))
    return list(found)


def augment(
    texts: Sequence[str], candidates: Mapping[str, Candidates], settings: Augmentation
) -> list[tuple[int, str]]:
    """Return (index of the document, text) of all documents and their variants; those of one stand together.

    What is made of a document depends on the seed and its index, not on the other documents.
    """
    return [
        (index, variant)
        for index, text in enumerate(texts)
        for variant in variants(parts_of(text), candidates[text], settings, random.Random(f"{settings.seed} {index}"))
    ]
