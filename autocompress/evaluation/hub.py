"""Fetch models and data sets from a model hub; a machine without a network hears so within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress._optional import require
from autocompress.errors import SourceError

_TIMEOUT_S = 5.0
_MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class HubSource:
    """A model or data set on a hub.

    Attributes:
        name: ``owner/name`` or ``name``; for data sets, a configuration may follow (``glue/sst2``).
        revision: Branch, tag or commit; ``None`` is the default branch, which may move.
    """

    name: str
    revision: str | None = None


def parse_hub(source: str) -> HubSource:
    """Read ``hub:NAME[@revision]``.

    Raises:
        SourceError: The name has no or more than three parts, or the revision is empty.
    """
    name, at, revision = source.removeprefix("hub:").partition("@")
    parts = name.split("/")
    if not all(parts) or len(parts) > 3 or (at and not revision):
        raise SourceError(
            f"The source {source!r} cannot be read.",
            right="A hub source is hub:NAME or hub:NAME@REVISION.",
            next_step="For example: hub:google-bert/bert-base-uncased@main",
        )
    return HubSource(name, revision or None)


def fetch_model(source: HubSource, *, cache: Path) -> Path:
    """Return the folder of a model's configuration, safetensors weights and tokenizer, from the cache if it is there.

    Raises:
        SourceError: The hub cannot be reached, or has no such model.
    """
    import huggingface_hub

    fetch = huggingface_hub.snapshot_download
    options: dict[str, Any] = {"revision": source.revision, "cache_dir": cache / "hub", "allow_patterns": _MODEL_FILES}
    try:
        return Path(fetch(source.name, etag_timeout=_TIMEOUT_S, **options))
    except (OSError, ValueError) as error:
        raise _unreachable(source, error) from error


Rows = Mapping[str, list[Any]]
"""Column name -> values, all of one length."""


def load_rows(source: HubSource, *, cache: Path, load: Callable[..., Any] | None = None) -> dict[str, Rows]:
    """Return the rows of each split of a data set.

    ``a/b`` may be data set ``b`` of owner ``a`` or configuration ``b`` of data set ``a``; the first that exists counts.

    Args:
        source: ``name``, ``owner/name``, ``name/configuration`` or ``owner/name/configuration``.
        cache: Folder for downloads.
        load: Takes the place of ``datasets.load_dataset``.

    Raises:
        MissingDependencyError: The package ``datasets`` is not installed.
        SourceError: The hub cannot be reached, or has no such data set.
    """
    if load is None:
        package = require("datasets", extra="hub", purpose="load data sets from a hub")
        with _offline_unless_reachable(package.config, source.name):
            return load_rows(source, cache=cache, load=package.load_dataset)
    parts = source.name.split("/")
    attempts = [("/".join(parts[:2]), *parts[2:])] + ([(parts[0], parts[1])] if len(parts) == 2 else [])
    failures: list[Exception] = []
    for attempt in attempts:
        try:
            splits = load(*attempt, revision=source.revision, cache_dir=str(cache / "hub-datasets"))
        except (OSError, ValueError, RuntimeError) as error:
            failures.append(error)
        else:
            return {name: {column: list(rows[column]) for column in rows.column_names} for name, rows in splits.items()}
    raise _unreachable(source, failures[0]) from failures[0]


@contextmanager
def _offline_unless_reachable(config: Any, name: str) -> Iterator[None]:
    """Spare an offline machine the minute in which ``datasets`` would retry before it turns to its cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    before = config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info("/".join(name.split("/")[:2]), timeout=_TIMEOUT_S)
    except HfHubHTTPError:
        pass  # the hub answered
    except Exception:
        # The HTTP library's own errors, which the hub's client passes on: no network, no name, no answer in time.
        config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _unreachable(source: HubSource, error: Exception) -> SourceError:
    lines = str(error).strip().splitlines()
    return SourceError(
        f"{source.name!r} cannot be had from the hub: {lines[0] if lines else type(error).__name__}",
        right="A hub source names an existing, readable repository, and the hub can be reached.",
        next_step="Check the name and the network, or download it elsewhere and name the local folder.",
    )
