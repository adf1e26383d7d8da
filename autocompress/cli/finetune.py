"""``autocompress finetune``: fit the teacher to the task."""

from __future__ import annotations

from autocompress.cli.options import Overrides, RunFile
from autocompress.cli.terminal import progress, say

NAME, HELP = "finetune", "Fit the run's model to its task; the result is cached and used by search."


def run(run_file: RunFile, overrides: Overrides = None) -> None:
    """See ``HELP``."""
    from autocompress.config import load_config
    from autocompress.evaluation.task import predict_with
    from autocompress.pipeline.teacher import load_teacher

    config = load_config(run_file, overrides or ())
    with progress() as report:
        teacher = load_teacher(config, report)
    score = teacher.task.evaluate(predict_with(teacher.model), "test")
    say(f"{score.metric} {score.value:.4f} ± {score.standard_error:.4f} on {score.count} test documents")
    say(f"Kept in {teacher.folder}")
