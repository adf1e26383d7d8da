"""A tokenizer with fewer tokens: what it cannot do without, and the same tokenizer of only some of its tokens.

A text whose tokens are all kept is cut as before: WordPiece takes the longest piece that there is, byte-pair merges
keep their order, and of all ways to cut a text the most probable under a unigram model stays so when others vanish.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.errors import UnsupportedError
from autocompress.evaluation.tokenizer_json import bare, bytes_in, ids_of, merged, named_in, read_json, renamed, shrunk
from autocompress.feeds import Ids


def needed_tokens(tokenizer: Any, counts: Ids) -> tuple[int, ...]:
    """Return the ids that a tokenizer keeps whatever else goes, ascending.

    They are the special tokens; the bytes of a byte-level alphabet; of pieces that are one character those whose
    character occurs in the documents, so that a word without a piece of its own still falls into pieces; and of a
    unigram model the least probable piece, which decides what an unknown character costs.

    Args:
        tokenizer: A Hugging Face tokenizer.
        counts: How often each id occurs in the documents (vocabulary,).

    Raises:
        UnsupportedError: The tokenizer is of a kind that cannot be made smaller.
    """
    data = read_json(tokenizer)
    model, vocabulary = data["model"], ids_of(data["model"])
    special = {token["id"] for token in data["added_tokens"] if token["special"]}
    found = {*special, *tokenizer.all_special_ids, *named_in(data["post_processor"]), *bytes_in(data)}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found |= {scores.index(min(scores)), model["unk_id"]}
    elif model.get("unk_token"):
        found.add(vocabulary[model["unk_token"]])
    read = [piece for piece, id in vocabulary.items() if id < len(counts) and counts[id] and id not in special]
    letters = set("".join(read))
    found |= {id for piece, id in vocabulary.items() if bare(piece, model) in letters}
    return tuple(sorted(_closed((id for id in found if id is not None and id < len(counts)), merged(model))))


def parts_of_tokens(tokenizer: Any) -> dict[int, tuple[int, ...]]:
    """Return, for each id that byte-pair merges make, the ids that they make it of; of other tokenizers nothing.

    Raises:
        UnsupportedError: The tokenizer is of a kind that cannot be made smaller.
    """
    return merged(read_json(tokenizer)["model"])


def common_tokens(
    counts: Ids,
    needed: Sequence[int],
    parts: Mapping[int, tuple[int, ...]],
    *,
    coverage: float,
    uncounted: Sequence[int],
) -> tuple[int, ...]:
    """Return the fewest ids that make up ``coverage`` of all occurrences together with ``needed``, most frequent first.

    Args:
        counts: How often each id occurs (vocabulary,).
        needed: Ids that are kept anyway; what they are made of is too.
        parts: See ``parts_of_tokens``.
        coverage: Share of the occurrences (0 to 1).
        uncounted: Ids whose occurrences do not count: special tokens, which stand in every document.
    """
    counts = counts.copy()
    counts[list(uncounted)] = 0
    found = _closed(needed, parts)
    kept, common = set(found), []
    open_ids = iter(np.argsort(-counts, kind="stable").tolist())
    covered, enough = int(counts[found].sum()), coverage * int(counts.sum())
    while covered < enough:
        for token in _closed([next(open_ids)], parts):
            if token not in kept:
                kept.add(token)
                common.append(token)
                covered += int(counts[token])
    return tuple(common)


def shrink(tokenizer: Any, kept: Sequence[int]) -> Any:
    """Return a tokenizer of the ids ``kept`` (ascending) alone; token ``kept[i]`` gets the id i.

    Raises:
        UnsupportedError: It cannot be made of these, or is of a kind that cannot be made smaller.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    data, ids = read_json(tokenizer), {old: new for new, old in enumerate(kept)}
    names = {old: name for name, old in tokenizer.get_vocab().items() if old in ids}
    try:
        data["model"] = shrunk(data["model"], ids)
        added = [token for token in data["added_tokens"] if token["id"] in ids]
        data["added_tokens"] = [{**token, "id": ids[token["id"]]} for token in added]
        data["post_processor"] = renamed(data["post_processor"], ids.__getitem__)
        if data["padding"]:
            data["padding"]["pad_id"] = ids[data["padding"]["pad_id"]]
        backend = Tokenizer.from_str(json.dumps(data))
    except KeyError as error:
        raise _incomplete(f"the special token of id {error}") from None
    moved = [name for old, name in names.items() if backend.token_to_id(name) != ids[old]]
    if moved:
        raise _incomplete(f"the order of ids, as {moved[0]!r} shows,")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **tokenizer.special_tokens_map,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
    )


def _incomplete(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"The smaller tokenizer would lose {what} of the larger one.",
        right="Special tokens stay, and tokens without a name come after all others.",
        next_step="Keep all of needed_tokens, or leave search.space.vocabulary_keep at [1.0].",
    )


def _closed(ids: Iterable[int], parts: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Return ``ids`` and what they are made of."""
    found, pending = dict[int, None](), list(ids)
    while pending:
        token = pending.pop()
        if token not in found:
            found[token] = None
            pending += parts.get(token, ())
    return list(found)
