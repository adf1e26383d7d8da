"""Import packages that only some uses need, with one clear error where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from autocompress.errors import MissingDependencyError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``module``.

    Args:
        module: Dotted name, e.g. ``pyarrow.parquet``.
        extra: The extra of this package that brings it, e.g. ``parquet``.
        purpose: What needs it, as it reads after "is needed to", e.g. ``read parquet files``.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"The package {package!r} is not installed.",
            right=f"It is needed to {purpose}.",
            next_step=f"Run: pip install 'autocompress[{extra}]'",
        ) from None
