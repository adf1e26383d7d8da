"""Fine-tuned teachers and their tasks, from folders beside the repository: users bring their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.evaluation.datasets import DataSpec
from autocompress.evaluation.load import load_task
from autocompress.evaluation.text_classification import TextClassification
from autocompress.models.load import load_classifier

MAX_TOKENS = 64


@dataclass(frozen=True)
class Tutored:
    """A task and the model that was fine-tuned for it, in eval mode.

    Attributes:
        name: Of the task.
        folder: Of the model.
        model: A classifier of the task's classes.
        task: Documents, tokenizer, metric.
    """

    name: str
    folder: Path
    model: nn.Module
    task: TextClassification


def load(name: str, *, teachers: Path, data: Path, cache: Path, max_tokens: int = MAX_TOKENS) -> Tutored:
    """Load the teacher ``teachers/minilm-l6-NAME`` and the data ``data/NAME`` (train, dev and test as ``.tsv``)."""
    folder = teachers / f"minilm-l6-{name}"
    spec = DataSpec(str(data / name), train="train.tsv", validation="dev.tsv", test="test.tsv")
    task = load_task(folder, spec, cache=cache, max_tokens=max_tokens)
    return Tutored(name, folder, load_classifier(folder), task)


def logits(model: nn.Module, task: TextClassification, split: Any, *, batch_size: int = 32) -> tuple[torch.Tensor, ...]:
    """Return logits (documents x classes) and labels (documents,) of a split, sorted by length."""
    found, labels = [], []
    with torch.inference_mode():
        for batch in task.batches(split, batch_size=batch_size):
            found.append(model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits)
            labels.append(batch.labels)
    return torch.cat(found), torch.cat(labels)
