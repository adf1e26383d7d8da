"""From an image to what a model reads of it: the steps of an image processor, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from autocompress.errors import SourceError
from autocompress.shape import Pixels

PROCESSOR_FILE = "preprocessor_config.json"
"""Of a model's folder, as transformers' image processors write it."""
Image: TypeAlias = npt.NDArray[np.uint8]
"""(height x width x channels), as files hold it."""

_FILTERS: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow's filters, which processors name."""


@dataclass(frozen=True)
class PixelFormat:
    """How a model reads images.

    Attributes:
        channels: 1, grey, or 3, red, green and blue.
        height, width: In pixels.
        mean, deviation: Of each channel: (level * scale - mean) / deviation is read.
        scale: Of a level, which is 0 to 255.
        resize: What an image is brought to before its centre is cut out: its shorter edge to so many pixels, or height
            and width to two numbers; nothing: to ``height`` and ``width``, so that nothing is cut off.
        resampling: Between pixels; where an image becomes smaller, each pixel is a mean over all that it covers.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    scale: float = 1 / 255
    resize: tuple[int, ...] = ()
    resampling: Literal["bilinear", "bicubic"] = "bilinear"

    def fit(self, image: Image, where: str) -> npt.NDArray[np.uint8]:
        """Return the image (channels x height x width) in the model's size.

        Grey images are read as colour by a model of three channels, as their channels are equal then.

        Args:
            image: Of any size.
            where: It comes from, for errors.

        Raises:
            SourceError: It has other channels than the model.
        """
        height, width, channels = image.shape
        if channels == 1 < self.channels:
            image = np.repeat(image, self.channels, axis=2)
        elif channels != self.channels:
            raise SourceError(
                f"{where} has {channels} channels, and the model reads {self.channels}.",
                right="Images have as many channels as the model reads, or one.",
                next_step="Convert the images, or choose a model of colour images.",
            )
        levels, to = image.transpose(2, 0, 1), self._resized_to(height, width)
        if to != (height, width):
            given = torch.from_numpy(levels.copy())[None]
            levels = functional.interpolate(given, to, mode=self.resampling, align_corners=False, antialias=True)[
                0
            ].numpy()
        top, left = ((size - kept) // 2 for size, kept in zip(to, (self.height, self.width), strict=True))
        return levels[:, top : top + self.height, left : left + self.width]

    def normalize(self, images: Tensor) -> Tensor:
        """Return what the model reads (images x channels x height x width) float32 of such images in uint8."""
        mean, deviation = (torch.tensor(each).reshape(-1, 1, 1) for each in (self.mean, self.deviation))
        return (images.float() * self.scale - mean) / deviation

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json``, which ``read_format`` and transformers read."""
        size = {"height": self.height, "width": self.width}
        edges = ("shortest_edge",) if len(self.resize) == 1 else ("height", "width")
        written = {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": self.channels == 3,
            "do_resize": True,
            "size": dict(zip(edges, self.resize, strict=True)) if self.resize else size,
            "do_center_crop": bool(self.resize),
            "crop_size": size,
            "resample": {name: number for number, name in _FILTERS.items()}[self.resampling],
            "do_rescale": True,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }
        (folder / PROCESSOR_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")

    def _resized_to(self, height: int, width: int) -> tuple[int, int]:
        if not self.resize:
            return self.height, self.width
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        (edge,) = self.resize  # As in transformers, the longer edge is cut down to a whole pixel.
        return (edge, edge * width // height) if height <= width else (edge * height // width, edge)


def read_format(folder: Path, pixels: Pixels) -> PixelFormat:
    """Return how the model in ``folder`` reads images: by its image processor or, without one, from -1 to 1.

    Args:
        folder: Of a model.
        pixels: That it reads.

    Raises:
        SourceError: The processor's file cannot be read, or makes other images than the model reads.
    """
    file, usual = folder / PROCESSOR_FILE, (0.5,) * pixels.channels
    if not file.is_file():
        return PixelFormat(pixels.channels, pixels.height, pixels.width, usual, usual)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        cropped, resize = bool(told.get("do_center_crop")), _size(told["size"])
        made = _size(told["crop_size"]) if cropped else resize
        normal = bool(told.get("do_normalize", True))
        format_ = PixelFormat(
            pixels.channels,
            pixels.height,
            pixels.width,
            _each(told.get("image_mean", usual), pixels.channels) if normal else (0.0,) * pixels.channels,
            _each(told.get("image_std", usual), pixels.channels) if normal else (1.0,) * pixels.channels,
            float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1.0,
            resize if cropped or len(resize) == 1 else (),
            _FILTERS[int(told.get("resample", 2))],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"The image processor in {file} cannot be used ({type(error).__name__}: {error}).",
            right="It has size, image_mean and image_std of each of the model's channels, and resample 2 or 3.",
            next_step="Save the processor of this model into its folder, or remove the file to read pixels as -1 to 1.",
        ) from error
    reads = (pixels.height, pixels.width)
    small = any(size < needed for size, needed in zip(resize * (3 - len(resize)), reads, strict=True))
    if small or (len(made) == 2 and made != reads):
        raise SourceError(
            f"The image processor in {file} makes images of {' x '.join(map(str, min(made, resize)))} pixels.",
            right=f"The model reads {pixels.height} x {pixels.width}.",
            next_step="Correct its size, or its crop_size, or set image_size in the model's config.json.",
        )
    return format_


def _size(told: Any) -> tuple[int, ...]:
    """Return height and width as a processor names them, or the one edge that it names."""
    if isinstance(told, int):
        return told, told
    return (int(told["height"]), int(told["width"])) if "height" in told else (int(told["shortest_edge"]),)


def _each(values: Any, channels: int) -> tuple[float, ...]:
    """Return a number for each channel: one for all, or as many as there are."""
    found = [values] if isinstance(values, int | float) else list(values)
    if len(found) not in (1, channels):
        raise ValueError(f"{len(found)} numbers for {channels} channels")
    return tuple(float(each) for each in found * (channels // len(found)))
