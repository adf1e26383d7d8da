"""What students are made of: the teacher itself, or a smaller pretrained model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.config import RunConfig
from autocompress.evaluation.sources import MODEL_WEIGHTS
from autocompress.evaluation.task import Task
from autocompress.export.package import sha256_of
from autocompress.models.load import load_classifier
from autocompress.pipeline.inputs import Inputs
from autocompress.pipeline.teacher import Teacher
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class Start:
    """What plans are carried out on.

    Attributes:
        name: In tables: ``teacher``, or ``start`` where it is another model.
        model: A classifier of the task's classes, in eval mode.
        shape: Of the model.
        task: As it reads the examples; labels are the teacher's, for fidelity too.
        fingerprint: Changes whenever weights, documents or the teacher do.
        counterparts: See ``Inputs``.
    """

    name: str
    model: nn.Module
    shape: ModelShape
    task: Task
    fingerprint: str
    counterparts: Tensor | None = None

    @classmethod
    def of(cls, teacher: Teacher) -> Start:
        """Return the teacher itself."""
        return cls("teacher", teacher.model, teacher.shape, teacher.task, teacher.fingerprint)


def load_start(config: RunConfig, inputs: Inputs, teacher: Teacher) -> Start:
    """Return what students of the run are made of; of another model than the teacher the classifier is new.

    Raises:
        SourceError: The weights cannot be read.
    """
    if config.model.student is None:
        return Start.of(teacher)
    given, task = inputs.start, inputs.start.task
    torch.manual_seed(config.search.seed)
    model = load_classifier(given.folder, classes=teacher.task.dataset.classes)
    if teacher.task is not inputs.teacher.task:  # For fidelity it has other labels.
        task = task.with_dataset(teacher.task.dataset)
    weights = sha256_of(given.folder / MODEL_WEIGHTS)
    return Start("start", model, given.shape, task, f"{teacher.fingerprint} {weights}", inputs.counterparts)
