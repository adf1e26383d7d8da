"""A smaller pretrained model learns the task from the teacher, before plans are carried out on it."""

from __future__ import annotations

from dataclasses import replace

import torch

from autocompress.compression.distillation import DistillStep
from autocompress.config import RunConfig
from autocompress.devices.paths import cache_folder
from autocompress.evaluation.sources import MODEL_WEIGHTS
from autocompress.export.package import replacing
from autocompress.models.load import load_classifier
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.start import Start
from autocompress.pipeline.teacher import digest
from autocompress.plan import CompressionPlan
from autocompress.training.checkpoint import Checkpoint


def schooled(students: Students, config: RunConfig, progress: Progress) -> Start:
    """Return what ``students`` are made of, once it has learnt the task; from the cache if it was taught so before.

    What is measured of it later (importance of heads, sensitivity to bits) is then that of a model that does the task.

    Args:
        students: Made of the model as it came.
        config: Of the run, with a ``model.student``.
        progress: Told of every step.
    """
    how, search, start = config.model.student, config.search, students.start
    assert how is not None
    plan = CompressionPlan((DistillStep(how.steps, how.learning_rate, search.seed, how.recipe),))
    read = config.task.model_dump(mode="json", include={"max_tokens", "text"})
    key = digest(start.fingerprint, plan.to_json(), read, search.batch_size, search.variants, torch.__version__)
    folder = cache_folder() / "starts" / key
    checkpoint = Checkpoint(folder.with_suffix(".training"))
    if (folder / MODEL_WEIGHTS).is_file():
        progress("teach", 1, 1, f"cached in {folder}")
        model = load_classifier(folder)
    else:
        model = students.make(plan, "teach", checkpoint=checkpoint)
        with replacing(folder) as draft:
            model.save_pretrained(draft)  # type: ignore[operator]
            start.task.save(draft)
    checkpoint.discard()
    return replace(start, model=model, fingerprint=key)
