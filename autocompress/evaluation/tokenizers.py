"""A tokenizer with fewer tokens: what it cannot do without, and the same tokenizer of only some of its tokens.

A text whose tokens are all kept is cut as before: WordPiece takes the longest piece that there is, byte-pair merges
keep their order, and of all ways to cut a text the most probable under a unigram model stays so when others vanish.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from autocompress.errors import UnsupportedError
from autocompress.evaluation.task import Ids

Json: TypeAlias = dict[str, Any]
NewIds: TypeAlias = Mapping[int, int]


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
    data = _read(tokenizer)
    model, vocabulary = data["model"], _vocabulary(data["model"])
    special = {token["id"] for token in data["added_tokens"] if token["special"]}
    found = {*special, *tokenizer.all_special_ids, *_named(data["post_processor"])}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found |= {scores.index(min(scores)), model["unk_id"]}
    elif model.get("unk_token"):
        found.add(vocabulary[model["unk_token"]])
    if _has_bytes(data):
        made = set(_merged(model))
        found |= {id for piece, id in vocabulary.items() if id not in made and (len(piece) == 1 or _is_byte(piece))}
    read = [piece for piece, id in vocabulary.items() if id < len(counts) and counts[id] and id not in special]
    letters = set("".join(read))
    found |= {id for piece, id in vocabulary.items() if _bare(piece, model) in letters}
    return tuple(sorted(_closed((id for id in found if id is not None and id < len(counts)), _merged(model))))


def parts_of_tokens(tokenizer: Any) -> dict[int, tuple[int, ...]]:
    """Return, for each id that byte-pair merges make, the ids that they make it of; of other tokenizers nothing.

    Raises:
        UnsupportedError: The tokenizer is of a kind that cannot be made smaller.
    """
    return _merged(_read(tokenizer)["model"])


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

    data, ids = _read(tokenizer), {old: new for new, old in enumerate(kept)}
    names = {old: name for name, old in tokenizer.get_vocab().items() if old in ids}
    try:
        data["model"] |= _MODELS[data["model"]["type"]](data["model"], ids)
        added = [token for token in data["added_tokens"] if token["id"] in ids]
        data["added_tokens"] = [{**token, "id": ids[token["id"]]} for token in added]
        data["post_processor"] = _renamed(data["post_processor"], ids.__getitem__)
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


def _read(tokenizer: Any) -> Json:
    """Return what ``tokenizer.json`` says, if all that holds ids in it is known."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    data: Json = {} if backend is None else json.loads(backend.to_str())
    kinds = [data["model"]["type"], *_kinds(data["post_processor"])] if data else [type(tokenizer).__name__]
    for kind in kinds:
        if kind not in _MODELS and kind not in _PROCESSORS:
            raise UnsupportedError(
                f"The tokenizer has a part of the kind {kind!r}, whose tokens cannot be numbered anew.",
                right=f"Smaller vocabularies are made of {', '.join(_MODELS)}, with {', '.join(_PROCESSORS)}.",
                next_step="Leave search.space.vocabulary_keep at [1.0], or choose another model.",
            )
    return data


def _incomplete(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"The smaller tokenizer would lose {what} of the larger one.",
        right="Special tokens stay, and tokens without a name come after all others.",
        next_step="Keep all of needed_tokens, or leave search.space.vocabulary_keep at [1.0].",
    )


def _vocabulary(model: Json) -> dict[str, int]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        return {piece: id for id, (piece, _) in enumerate(vocabulary)}
    return dict(vocabulary)


def _mapped(model: Json, ids: NewIds) -> Json:
    return {"vocab": {piece: ids[old] for piece, old in _vocabulary(model).items() if old in ids}}


def _byte_pairs(model: Json, ids: NewIds) -> Json:
    """Keep a merge where its parts and what it makes are kept, in the order they were in."""
    vocabulary = _vocabulary(model)

    def stays(pair: tuple[str, str]) -> bool:
        return all(vocabulary[piece] in ids for piece in (*pair, _made(pair, model)))

    return {**_mapped(model, ids), "merges": [pair for pair in map(_pair, model["merges"]) if stays(pair)]}


def _unigrams(model: Json, ids: NewIds) -> Json:
    kept = [entry for old, entry in enumerate(model["vocab"]) if old in ids]
    return {"vocab": kept, "unk_id": None if model["unk_id"] is None else ids[model["unk_id"]]}


_MODELS: dict[str, Callable[[Json, NewIds], Json]] = {
    "WordPiece": _mapped,
    "WordLevel": _mapped,
    "BPE": _byte_pairs,
    "Unigram": _unigrams,
}
"""Kind of model -> what of it changes with the ids."""


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _made(pair: tuple[str, str], model: Json) -> str:
    return pair[0] + pair[1].removeprefix(model.get("continuing_subword_prefix") or "")


def _merged(model: Json) -> dict[int, tuple[int, ...]]:
    """Return the ids of all pairs that make each id."""
    vocabulary, found = _vocabulary(model), dict[int, tuple[int, ...]]()
    for pair in map(_pair, model.get("merges", ())):
        made = vocabulary[_made(pair, model)]
        found[made] = (*found.get(made, ()), *(vocabulary[part] for part in pair))
    return found


def _closed(ids: Iterable[int], parts: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Return ``ids`` and what they are made of."""
    found, pending = dict[int, None](), list(ids)
    while pending:
        token = pending.pop()
        if token not in found:
            found[token] = None
            pending += parts.get(token, ())
    return list(found)


def _has_bytes(data: Json) -> bool:
    """Return whether every text can be spelt in bytes: then none is unknown as long as these are kept."""
    return bool(data["model"].get("byte_fallback")) or "ByteLevel" in _kinds(data["pre_tokenizer"])


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _bare(piece: str, model: Json) -> str:
    """Return a piece without what marks it as the inside or the end of a word."""
    inside = model.get("continuing_subword_prefix") or ""
    return (piece.removeprefix(inside) or piece).removesuffix(model.get("end_of_word_suffix") or "")


def _kinds(part: Json | None) -> list[str]:
    """Return the kinds of a processor or pre-tokenizer and of those inside it."""
    if part is None:
        return []
    inside = part.get("processors") or part.get("pretokenizers") or ()
    return [part["type"], *(kind for each in inside for kind in _kinds(each))]


def _renamed(processor: Json | None, rename: Callable[[int], int]) -> Json | None:
    return None if processor is None else _PROCESSORS[processor["type"]](processor, rename)


def _named(processor: Json | None) -> set[int]:
    """Return the ids that a processor names."""
    named = set[int]()

    def note(id: int) -> int:
        named.add(id)
        return id

    _renamed(processor, note)
    return named


def _pairs(processor: Json, rename: Callable[[int], int]) -> Json:
    return processor | {end: [processor[end][0], rename(processor[end][1])] for end in ("sep", "cls")}


def _template(processor: Json, rename: Callable[[int], int]) -> Json:
    tokens = processor["special_tokens"].items()
    renamed = {name: {**token, "ids": [rename(id) for id in token["ids"]]} for name, token in tokens}
    return processor | {"special_tokens": renamed}


def _sequence(processor: Json, rename: Callable[[int], int]) -> Json:
    return processor | {"processors": [_renamed(each, rename) for each in processor["processors"]]}


_PROCESSORS: dict[str, Callable[[Json, Callable[[int], int]], Json]] = {
    "BertProcessing": _pairs,
    "RobertaProcessing": _pairs,
    "TemplateProcessing": _template,
    "ByteLevel": lambda processor, rename: processor,
    "Sequence": _sequence,
}
"""Kind of post-processor -> the same with its ids renamed."""
