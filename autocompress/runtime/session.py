"""Open a package and classify texts or images with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.errors import SourceError, UnsupportedError
from autocompress.feeds import PIXELS
from autocompress.runtime.readers import PROCESSOR_FILE, TOKENIZER_FILE, Example, image_reader, text_reader


@dataclass(frozen=True)
class Prediction:
    """A class and its probability (0 to 1)."""

    label: str
    probability: float


class Session:
    """A package that is ready to run.

    Args:
        folder: What a search wrote, e.g. ``runs/quickstart/best``.
        engine: ``onnxruntime`` or ``tvm``; by default the one that the package was measured with.
        threads: Threads that the engine gets.

    Raises:
        SourceError: The folder is no complete package.
        UnsupportedError: The package has no artifact for the engine.
    """

    def __init__(self, folder: Path | str, *, engine: str | None = None, threads: int = 1) -> None:
        folder = Path(folder)
        manifest = _read_manifest(folder)
        engine = engine or manifest["engine"]
        if engine not in manifest["artifacts"]:
            raise UnsupportedError(
                f"{folder} has no artifact for the engine {engine!r}.",
                right=f"It has {', '.join(manifest['artifacts'])}.",
                next_step="Choose one of them, or export again with export.formats.",
            )
        self.labels: list[str] = manifest["labels"]
        self.tokens = int(manifest["tokens"])
        self._read = image_reader(folder) if _reads_images(manifest) else text_reader(folder, self.tokens)
        self._run = open_artifact(
            Artifact(folder / manifest["artifacts"][engine], engine, self.tokens), threads=threads
        )

    def classify(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return the most probable class of each text or image, one inference each.

        Args:
            examples: Texts, or images (height x width x channels) in uint8 that have the size which the model reads.

        Raises:
            UnsupportedError: The model reads the other kind, or images of another size.
        """
        return [self._classify(example) for example in examples]

    def _classify(self, example: Example) -> Prediction:
        (logits,) = self._run(self._read(example)).astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return Prediction(self.labels[best], float(probabilities[best] / probabilities.sum()))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        reader = PROCESSOR_FILE if _reads_images(manifest) else TOKENIZER_FILE
        missing = [name for name in (reader, *manifest["artifacts"].values()) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{', '.join(missing)} missing")
        return manifest
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"{folder} is not an exported package ({type(error).__name__}: {error}).",
            right="A package holds manifest.json, a model, and tokenizer.json or preprocessor_config.json.",
            next_step="Point at the best/ folder of a finished run.",
        ) from None


def _reads_images(manifest: dict[str, Any]) -> bool:
    """Whether pixels are among the feeds; packages that name none are of text."""
    return any(feed["name"] == PIXELS for feed in manifest.get("feeds", ()))
