"""Keep fitted predictors as JSON files, one a device, engine and thread count; never as pickles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autocompress.devices.paths import write_text
from autocompress.errors import StorageError
from autocompress.predictors.features import FEATURES
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, read_samples
from autocompress.shape import by_block

FORMAT_VERSION = 3
REFITTED_VERSIONS = (1, 2)
"""Of files whose samples are fitted anew when they are read: their layers name one width for both linears of a block,
and fits of the first are no longer used."""


def file_name(device: str, engine: str, threads: int) -> str:
    """Return the name under which such a predictor is kept."""
    return f"{device}-{engine}-{threads}t.json"


def save(predictor: FittedPredictor, folder: Path) -> Path:
    """Write ``predictor`` into ``folder`` (made if needed), in place of an older one, and return the path."""
    path = folder / file_name(predictor.device, predictor.engine, predictor.threads)
    write_text(path, json.dumps({"format_version": FORMAT_VERSION, **predictor.to_dict()}, indent=1) + "\n")
    return path


def load(path: Path) -> FittedPredictor:
    """Read what ``save`` wrote.

    Raises:
        StorageError: The file is missing, no predictor, damaged, of another format version, or fitted on features that
            this version does not count.
    """
    again = "Profile the device again (autocompress profile), or restore the file."
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"The predictor {path} cannot be read: {error}.", right="It is a JSON file.", next_step=again
        ) from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if version not in (*REFITTED_VERSIONS, FORMAT_VERSION):
        raise StorageError(
            f"The predictor {path} has format version {version!r}.",
            right=f"This version of AutoCompress reads format version {FORMAT_VERSION}.",
            next_step=again,
        )
    try:
        read = {name for figure in data.get("figures", {}).values() for name in figure["names"]}
        if not read.issubset(FEATURES):
            raise StorageError(
                f"The predictor {path} was fitted by another version of AutoCompress, on other features.",
                right=f"This version does not count {', '.join(sorted(read.difference(FEATURES)))}.",
                next_step=again,
            )
        return _refit(data) if version in REFITTED_VERSIONS else FittedPredictor.from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"The predictor {path} is damaged: {type(error).__name__} {error}.",
            right="It holds figures, ranges and samples as they were saved.",
            next_step=again,
        ) from None


def _refit(data: Mapping[str, Any]) -> FittedPredictor:
    return fit(
        read_samples(map(_by_linear, data["samples"])),
        device=data["device"],
        engine=data["engine"],
        threads=data["threads"],
        provenance=data["provenance"],
    )


def _by_linear(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample that names a width for each group of linears."""

    def layer(old: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in old.items() if name not in ("attention_bits", "ffn_bits")}
        names = "attention_in_bits", "attention_out_bits", "ffn_in_bits", "ffn_out_bits"
        widths = by_block(old["attention_bits"], old["ffn_bits"])
        return kept | dict(zip(names, widths, strict=True))

    shape = sample["shape"]
    return {**sample, "shape": {**shape, "layers": [layer(old) for old in shape["layers"]]}}


def find(folders: Iterable[Path], device: str, engine: str, threads: int) -> Path | None:
    """Return the predictor file of the first of ``folders`` that has one, or ``None``."""
    paths = (folder / file_name(device, engine, threads) for folder in folders)
    return next((path for path in paths if path.is_file()), None)
