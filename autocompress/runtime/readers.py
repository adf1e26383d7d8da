"""From an example to the feeds of a packaged model, without torch and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from autocompress.errors import UnsupportedError
from autocompress.feeds import PIXELS, Feeds, of_text

Example: TypeAlias = str | npt.NDArray[np.uint8]
"""A text; or an image (height x width) or (height x width x channels), its levels 0 to 255."""
Reader: TypeAlias = Callable[[Example], Feeds]

TOKENIZER_FILE, PROCESSOR_FILE = "tokenizer.json", "preprocessor_config.json"


def text_reader(folder: Path, tokens: int) -> Reader:
    """Return what makes ids of a text, cut to ``tokens``, by the tokenizer in ``folder``."""
    tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.enable_truncation(tokens)
    tokenizer.no_padding()

    def read(example: Example) -> Feeds:
        if not isinstance(example, str):
            raise _other_kind(folder, "texts", example)
        return of_text(np.array([tokenizer.encode(example).ids], np.int64))

    return read


def image_reader(folder: Path) -> Reader:
    """Return what makes pixels of an image that has the model's size, by the image processor in ``folder``."""
    told = json.loads((folder / PROCESSOR_FILE).read_text(encoding="utf-8"))
    mean, deviation = (np.array(told[name], np.float32) for name in ("image_mean", "image_std"))

    def read(example: Example) -> Feeds:
        if isinstance(example, str):
            raise _other_kind(folder, "images, arrays of uint8", example)
        pixels = (np.atleast_3d(example) * np.float32(told["rescale_factor"]) - mean) / deviation
        return {PIXELS: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)}

    return read


def _other_kind(folder: Path, reads: str, example: object) -> UnsupportedError:
    return UnsupportedError(
        f"{folder} is asked to classify a {type(example).__name__}.",
        right=f"Its model reads {reads}.",
        next_step="Give it such examples, or open another package.",
    )
