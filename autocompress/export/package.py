"""The folder that leaves the search: artifacts, what makes their feeds, the plan, and a manifest of its origin."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autocompress.cost import Artifact
from autocompress.engines import library_index
from autocompress.errors import StorageError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Contents:
    """What goes into a package.

    Attributes:
        artifacts: Engine -> artifact; copied.
        save_reader: Writes into a folder what makes feeds of examples: a tokenizer, an image processor.
        config_text: The found configuration, as YAML.
        manifest: JSON values; ``files`` with a sha256 each is added, and what each library was compiled for and of.
    """

    artifacts: Mapping[str, Artifact]
    save_reader: Callable[[Path], None]
    config_text: str
    manifest: Mapping[str, object]


def write_package(folder: Path, contents: Contents) -> Path:
    """Write the package; an older one at the same place stays until the new one is complete.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    with replacing(folder) as draft:
        files = {}
        for engine, artifact in contents.artifacts.items():
            target = draft / f"model{artifact.path.suffix}"
            shutil.copyfile(artifact.path, target)
            files[engine] = target.name
        contents.save_reader(draft)
        (draft / "config.yaml").write_text(contents.config_text, encoding="utf-8")
        hashes = {path.name: sha256_of(path) for path in sorted(draft.iterdir()) if path.is_file()}
        own = {"artifacts": files, "libraries": _libraries(contents.artifacts)}
        manifest = {"format_version": FORMAT_VERSION, **own, **contents.manifest, "files": hashes}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return folder


def _libraries(artifacts: Mapping[str, Artifact]) -> dict[str, object]:
    """Return target, kernels, tiles and tuning of every compiled library."""
    indexes = {engine: library_index(found.path) for engine, found in artifacts.items() if engine == "tvm"}
    names = ("target", "kernels", "tiles", "tuning")
    return {engine: {name: index[name] for name in names} for engine, index in indexes.items()}


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` if all goes well, and vanishes if not."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield draft
            draft.chmod(0o755)
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
                os.replace(folder, old / folder.name)  # noqa: PTH105 - a folder onto a new name
                draft.rename(folder)
                shutil.rmtree(old)
            else:
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written ({error.strerror or error}).",
            right="The disk needs room for the model, about the teacher's size; nothing that was there is lost.",
            next_step="Free space or choose another runs_folder, then run the same command with --resume.",
        ) from error


def sha256_of(path: Path) -> str:
    """Return the hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
