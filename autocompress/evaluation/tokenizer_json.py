"""What a ``tokenizer.json`` holds of token ids, and how these are numbered anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from autocompress.errors import UnsupportedError

Json: TypeAlias = dict[str, Any]
NewIds: TypeAlias = Mapping[int, int]
"""Id -> its new one, for every token that is kept."""


def read_json(tokenizer: Any) -> Json:
    """Return what the tokenizer's ``tokenizer.json`` says, if all that holds ids in it is known.

    Raises:
        UnsupportedError: There is a part that is not, or the tokenizer is not of ``tokenizers``.
    """
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


def ids_of(model: Json) -> dict[str, int]:
    """Return the id of each piece of a model."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        return {piece: id for id, (piece, _) in enumerate(vocabulary)}
    return dict(vocabulary)


def shrunk(model: Json, ids: NewIds) -> Json:
    """Return a model of the kept pieces alone."""
    return model | _MODELS[model["type"]](model, ids)


def _mapped(model: Json, ids: NewIds) -> Json:
    return {"vocab": {piece: ids[old] for piece, old in ids_of(model).items() if old in ids}}


def _byte_pairs(model: Json, ids: NewIds) -> Json:
    """Keep a merge where its parts and what it makes are kept, in the order they were in."""
    vocabulary = ids_of(model)

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


def merged(model: Json) -> dict[int, tuple[int, ...]]:
    """Return, for each id that byte-pair merges make, the ids of all pairs that make it."""
    vocabulary, found = ids_of(model), dict[int, tuple[int, ...]]()
    for pair in map(_pair, model.get("merges", ())):
        made = vocabulary[_made(pair, model)]
        found[made] = (*found.get(made, ()), *(vocabulary[part] for part in pair))
    return found


def bytes_in(data: Json) -> set[int]:
    """Return the ids of single bytes, of a tokenizer that spells in them what it does not know; else nothing."""
    model = data["model"]
    if not model.get("byte_fallback") and "ByteLevel" not in _kinds(data["pre_tokenizer"]):
        return set()
    made = merged(model)
    return {id for piece, id in ids_of(model).items() if id not in made and (len(piece) == 1 or _is_byte(piece))}


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def bare(piece: str, model: Json) -> str:
    """Return a piece without what marks it as the inside or the end of a word."""
    inside = model.get("continuing_subword_prefix") or ""
    return (piece.removeprefix(inside) or piece).removesuffix(model.get("end_of_word_suffix") or "")


def _kinds(part: Json | None) -> list[str]:
    """Return the kinds of a processor or pre-tokenizer and of those inside it."""
    if part is None:
        return []
    inside = part.get("processors") or part.get("pretokenizers") or ()
    return [part["type"], *(kind for each in inside for kind in _kinds(each))]


def renamed(processor: Json | None, rename: Callable[[int], int]) -> Json | None:
    """Return a post-processor in which ``rename`` has been asked for each id."""
    return None if processor is None else _PROCESSORS[processor["type"]](processor, rename)


def named_in(processor: Json | None) -> set[int]:
    """Return the ids that a processor names."""
    named = set[int]()

    def note(id: int) -> int:
        named.add(id)
        return id

    renamed(processor, note)
    return named


def _pairs(processor: Json, rename: Callable[[int], int]) -> Json:
    return processor | {end: [processor[end][0], rename(processor[end][1])] for end in ("sep", "cls")}


def _template(processor: Json, rename: Callable[[int], int]) -> Json:
    tokens = processor["special_tokens"].items()
    inserted = {name: {**token, "ids": [rename(id) for id in token["ids"]]} for name, token in tokens}
    return processor | {"special_tokens": inserted}


def _sequence(processor: Json, rename: Callable[[int], int]) -> Json:
    return processor | {"processors": [renamed(each, rename) for each in processor["processors"]]}


_PROCESSORS: dict[str, Callable[[Json, Callable[[int], int]], Json]] = {
    "BertProcessing": _pairs,
    "RobertaProcessing": _pairs,
    "TemplateProcessing": _template,
    "ByteLevel": lambda processor, rename: processor,
    "Sequence": _sequence,
}
"""Kind of post-processor -> the same with its ids renamed."""
