"""Load a classifier from a folder and find its adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from autocompress.errors import SourceError, UnsupportedError
from autocompress.models import bert, vit
from autocompress.models.adapter import ModelAdapter
from autocompress.shape import ModelShape

ADAPTERS: dict[str, ModelAdapter] = {
    adapter.name: adapter
    for adapter in (
        *(bert.BERT, bert.DISTILBERT, bert.ROBERTA, bert.ELECTRA, bert.XLM_ROBERTA, bert.CAMEMBERT),
        *(vit.VIT, vit.DEIT, vit.DINOV2, vit.DINOV2_WITH_REGISTERS),
    )
}
"""``model_type`` -> adapter."""


def adapter_of(model: nn.Module) -> ModelAdapter:
    """Return the adapter that reads ``model``.

    Raises:
        UnsupportedError: No adapter knows the model's type.
    """
    config: Any = model.config
    return _adapter(config.model_type)


def _adapter(model_type: str) -> ModelAdapter:
    if model_type not in ADAPTERS:
        raise UnsupportedError(
            f"Models of type {model_type!r} are not supported.",
            right=f"Supported types are {', '.join(ADAPTERS)}.",
            next_step="Choose another model, or add an adapter as docs/how_to_add.md says.",
        )
    return ADAPTERS[model_type]


def load_classifier(folder: Path, *, classes: tuple[str, ...] | None = None) -> nn.Module:
    """Load a classifier of texts or images from a ``save_pretrained`` folder, in eval mode and f32.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors``.
        classes: Class names to fine-tune for, which may start a new classifier; ``None`` keeps the stored one.

    Raises:
        SourceError: The folder or its files cannot be read.
        UnsupportedError: No adapter knows the model's type.
    """
    adapter = _adapter(_model_type(folder))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    labels: dict[str, Any] = {} if classes is None else {"num_labels": len(classes), "ignore_mismatched_sizes": True}
    try:
        model, loaded = getattr(transformers, adapter.auto_class).from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True, **labels
        )
    except Exception as error:
        # transformers raises many kinds (OSError, SafetensorError, RuntimeError, KeyError); all mean unreadable.
        raise _unreadable(folder, error) from error
    if classes is None and loaded["missing_keys"]:
        raise UnsupportedError(
            f"The model in {folder} has no classifier: {', '.join(sorted(loaded['missing_keys']))} are not in it.",
            right="A model that was fine-tuned for classification has them.",
            next_step="Add `finetune: {}` under model to fit it to the task first.",
        )
    if classes is not None:
        model.config.id2label = dict(enumerate(classes))
        model.config.label2id = {name: index for index, name in enumerate(classes)}
    adapter.fold(model)
    module: nn.Module = model.eval()
    return module


def load_shape(folder: Path) -> ModelShape:
    """Read the shape of a model from its ``config.json`` alone; no weights are needed.

    Raises:
        SourceError, UnsupportedError: As ``load_classifier``.
    """
    adapter = _adapter(_model_type(folder))
    try:
        with torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            model: nn.Module = getattr(transformers, adapter.auto_class).from_config(config)
    except Exception as error:
        # As above: a value in config.json that makes no model.
        raise _unreadable(folder, error) from error
    return adapter.shape(model)


def _unreadable(folder: Path, error: Exception) -> SourceError:
    return SourceError(
        f"The model in {folder} cannot be read: {' '.join(str(error).split())[:200]}",
        right="A folder written by save_pretrained holds config.json and an intact model.safetensors.",
        next_step="Download or save the model again.",
    )


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{path} is missing or is not a model's configuration ({type(error).__name__}).",
            right="A model folder, as save_pretrained writes it, holds config.json with a model_type.",
            next_step="Point model.source at such a folder.",
        ) from None
