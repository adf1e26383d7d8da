"""Recognise which file or published split is train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from autocompress.errors import SourceError

ROLES: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "validation": frozenset({"validation", "valid", "val", "dev", "development"}),
    "test": frozenset({"test", "testing"}),
}
"""Split -> the words in a name that say so: ``reuters-r8-train.tab`` is a train split."""


def choose_splits(
    names: Sequence[str], *, where: str, train: str | None, validation: str | None, test: str | None
) -> dict[str, str]:
    """Return the name of each split that there is; train is always among them.

    A name that is given is taken; else one is recognised by its words. Where several are, those count whose other
    words are the ones of the train split's name. A single unrecognised name is the train split.

    Raises:
        SourceError: A given name is not there, several fit, one is used twice, or none is a train split.
    """
    chosen: dict[str, str] = {}
    for role, named in (("train", train), ("validation", validation), ("test", test)):
        name = _named(named, names, where) if named else _recognised(role, names, where, chosen.get("train"))
        if name is not None and name in chosen.values():
            raise SourceError(
                f"{name!r} of {where} is to be {role} and another split.",
                right="Each split is a file of its own.",
                next_step=f"Correct task.data.{role}, or remove it to have it cut out of train.",
            )
        if name is not None:
            chosen[role] = name
    return chosen


def _named(named: str, names: Sequence[str], where: str) -> str:
    if named in names:
        return named
    close = get_close_matches(named, names, n=1)
    raise SourceError(
        f"{where} has no split {named!r}.",
        right=f"It has {_listed(names)}.",
        next_step=f"Did you mean {close[0]!r}?" if close else "Name one of them under task.data.",
    )


def _recognised(role: str, names: Sequence[str], where: str, train: str | None) -> str | None:
    found = [name for name in names if _read(name)[0] == role]
    if len(found) > 1 and train is not None:
        found = [name for name in found if _read(name)[1] == _read(train)[1]]
    if not found and role == "train" and len(names) == 1:
        return names[0]
    if len(found) > 1 or (not found and role == "train"):
        raise SourceError(
            f"{where} has {f'several {role} splits' if found else f'no {role} split'}.",
            right=f"It has {_listed(names)}.",
            next_step=f"Name the one to use under task.data.{role}.",
        )
    return found[0] if found else None


def _read(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the role that a name's words say, if they say just one, and its other words."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    roles = {role for role, marks in ROLES.items() if marks & set(words)}
    rest = tuple(word for word in words if not any(word in marks for marks in ROLES.values()))
    return (roles.pop() if len(roles) == 1 else None), rest


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:12]))
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "no data files"
