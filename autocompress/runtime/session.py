"""Open a package and classify text with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.errors import SourceError, UnsupportedError
from autocompress.feeds import of_text


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
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.tokens)
        self._tokenizer.no_padding()
        self._run = open_artifact(
            Artifact(folder / manifest["artifacts"][engine], engine, self.tokens), threads=threads
        )

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Return the most probable class of each text, one inference a text."""
        return [self._classify(text) for text in texts]

    def _classify(self, text: str) -> Prediction:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        (logits,) = self._run(of_text(ids)).astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return Prediction(self.labels[best], float(probabilities[best] / probabilities.sum()))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        missing = [
            name for name in ("tokenizer.json", *manifest["artifacts"].values()) if not (folder / name).is_file()
        ]
        if missing:
            raise FileNotFoundError(f"{', '.join(missing)} missing")
        return manifest
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{folder} is not an exported package ({type(error).__name__}: {error}).",
            right="A package holds manifest.json, tokenizer.json and a model.",
            next_step="Point at the best/ folder of a finished run.",
        ) from None
