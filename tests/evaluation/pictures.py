"""Small images to classify: how bright they are is their class."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from autocompress.evaluation.datasets import Dataset
from autocompress.evaluation.images import ImageSplit

CLASSES = ("black", "grey", "white")


def levels(count: int, seed: int = 0, edge: int = 8) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return grey images (count x edge x edge), uint8, and their classes: 0 to 2, in turn."""
    labels = np.arange(count) % len(CLASSES)
    noise = np.random.default_rng(seed).integers(0, 60, (count, edge, edge))
    return (90 * labels[:, None, None] + noise).astype(np.uint8), tuple(labels.tolist())


def dataset(channels: int = 1, edge: int = 8) -> Dataset[ImageSplit]:
    """Return 60, 15 and 18 images."""
    splits = []
    for count, seed in ((60, 0), (15, 1), (18, 2)):
        found, labels = levels(count, seed, edge)
        splits.append(ImageSplit(np.repeat(found[:, None], channels, axis=1), labels))
    return Dataset(*splits, CLASSES)


def write_folders(folder: Path, count: int = 12, seed: int = 0, ending: str = ".png") -> Path:
    """Write ``count`` colour images into a folder for each class."""
    for number, (image, label) in enumerate(zip(*levels(count, seed), strict=True)):
        place = folder / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(image[..., None], 3, axis=2)).save(place / f"{number}{ending}")
    return folder


def write_idx(folder: Path, part: str, count: int, seed: int = 0, zipped: bool = True) -> Path:
    """Write images and classes as MNIST's files."""
    images, labels = levels(count, seed)
    pack, ending = (gzip.compress, ".gz") if zipped else (bytes, "")
    head = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(head + images.tobytes()))
    (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(
        pack(struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(labels))
    )
    return folder


def write_rows(file: Path, count: int, seed: int = 0) -> Path:
    """Write an image a row, its class last."""
    images, labels = levels(count, seed)
    rows = [",".join(map(str, (*image.flatten(), label))) for image, label in zip(images, labels, strict=True)]
    file.write_bytes(gzip.compress("\n".join(rows).encode()))
    return file
