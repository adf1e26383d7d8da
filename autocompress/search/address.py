"""Where a study is kept, as a URL: read, and shown without what nobody else should read."""

from __future__ import annotations

import re

_USER_AND_PASSWORD = re.compile(r"(?<=://)([^:@/]*):.*@")
_PASSWORD_OPTION = re.compile(r"([?&]password=)[^&]*")


def without_password(storage: str) -> str:
    """Return ``storage`` as it may be shown and written down."""
    return _PASSWORD_OPTION.sub(r"\1", _USER_AND_PASSWORD.sub(r"\1@", storage))


def hide(text: str, storage: str) -> str:
    """Return ``text``, which somebody else wrote about ``storage``, without its password."""
    for found in (*_USER_AND_PASSWORD.finditer(storage), *_PASSWORD_OPTION.finditer(storage)):
        text = text.replace(found.group(), "***")
    return text.replace(storage, without_password(storage))


def is_file(storage: str) -> bool:
    """Whether a study is kept in a file, which belongs to one machine."""
    return storage.startswith(("journal:", "sqlite:"))


def with_driver(storage: str) -> str:
    """Return a database URL that names the driver that is meant where it names none."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", storage)
