"""What a study says beside its candidates, so that whoever joins a search finds all that decides it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import optuna

PART_CHARACTERS = 30_000
"""Of a long text in one attribute: some databases take no more than 64 KiB."""


def write(study: optuna.Study, name: str, value: object) -> None:
    """Keep a JSON value under ``name``; what is there already is not written again."""
    text = json.dumps(value)
    parts = [text[start : start + PART_CHARACTERS] for start in range(0, len(text), PART_CHARACTERS)]
    about = {"parts": len(parts), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    if study.user_attrs.get(name) == about:
        return
    for index, part in enumerate(parts):
        study.set_user_attr(f"{name}:{index}", part)
    study.set_user_attr(name, about)


def read(study: optuna.Study, name: str) -> Any:
    """Return what is kept under ``name``; ``None`` if nothing is, or not all of it yet."""
    known = study.user_attrs
    if name not in known:
        return None
    text = "".join(known.get(f"{name}:{index}", "") for index in range(known[name]["parts"]))
    return json.loads(text) if hashlib.sha256(text.encode()).hexdigest() == known[name]["sha256"] else None
