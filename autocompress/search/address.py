"""Where a study is kept, as a URL: read, and shown without what nobody else should read."""

from __future__ import annotations

import re

_PASSWORDS = (re.compile(r"(?<=://)([^:@/]*):(.*)@"), re.compile(r"([?&]password=)([^&]*)"))
"""Before the host and among the options; the second group is the password, as far as it could reach."""


def without_password(storage: str) -> str:
    """Return ``storage`` as it may be shown and written down."""
    before_host, option = _PASSWORDS
    return option.sub(r"\1", before_host.sub(r"\1@", storage))


def hide(text: str, storage: str) -> str:
    """Return ``text``, which somebody else wrote about ``storage``, without its password."""
    text = text.replace(storage, without_password(storage))
    for pattern in _PASSWORDS:
        for found in pattern.finditer(storage):
            text = text.replace(found[2], "***") if found[2] else text
    return text


def without_user(text: str) -> str:
    """Return a text that was meant as an address and is none, without whatever stands before its host."""
    return re.sub(r"^.*@", "***@", text)


def is_file(storage: str) -> bool:
    """Whether a study is kept in a file, which belongs to one machine."""
    return storage.startswith(("journal:", "sqlite:"))


def with_driver(storage: str) -> str:
    """Return a database URL that names the driver that is meant where it names none."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", storage)
