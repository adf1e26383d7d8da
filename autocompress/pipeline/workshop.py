"""All that is measured at the end: each plan is carried out once, and built for every device that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.cost import Artifact
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.candidates import Students, alternatives, space_of
from autocompress.pipeline.finalists import TEACHER, Made, export, make, refined
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import CompressionPlan


class Workshop:
    """Makes students and their artifacts; finalists are numbered in the order in which they are first asked for.

    Args:
        students: Makes them.
    """

    def __init__(self, students: Students) -> None:
        self._students = students
        self._made: dict[tuple[CompressionPlan, bool], Made] = {}

    def make_all(self, setting: Setting, workspace: Workspace, chosen: Sequence[CompressionPlan]) -> list[Made]:
        """Return the teacher, the alternatives and the finalists of a device, in this order.

        Args:
            setting: As the device sees it.
            workspace: Of the device.
            chosen: The plans of its finalists.
        """
        start, search = self._students.start, setting.config.search
        made = [self._teacher(setting, workspace)]
        if search.baselines:
            simple = alternatives(start.shape, space_of(setting.config, start.shape), start.name)
            made += [self._one(setting, workspace, plan, name) for name, plan in simple.items()]
        return made + [self._one(setting, workspace, plan) for plan in chosen]

    def _teacher(self, setting: Setting, workspace: Workspace) -> Made:
        teacher, key = setting.teacher, (CompressionPlan(), False)
        artifact = _built(teacher.model, setting, workspace.artifacts / TEACHER)
        if key not in self._made:
            validation = teacher.task.evaluate(predict_with(teacher.model), "validation").value
            self._made[key] = Made(TEACHER, key[0], teacher.model, teacher.task, validation, artifact, finalist=False)
        return replace(self._made[key], artifact=artifact)

    def _one(self, setting: Setting, workspace: Workspace, plan: CompressionPlan, name: str = "") -> Made:
        """Return an alternative of this ``name``, or a finalist."""
        key, search = (plan, not name), setting.config.search
        if key in self._made:
            known = self._made[key]
            stem = workspace.artifacts / known.artifact.path.stem
            return replace(known, artifact=_built(known.student, setting, stem))
        aware = QuantizationAwareStep(
            search.quantization_aware_steps, search.quantization_aware_learning_rate, seed=search.seed
        )
        self._made[key] = make(
            name or f"candidate {sum(finalist for _, finalist in self._made) + 1}",
            refined(plan, search.refine_steps, None if name else aware),
            config=setting.config,
            students=self._students,
            workspace=workspace,
            target=setting.target,
            container=setting.container,
            finalist=not name,
        )
        return self._made[key]


def _built(student: nn.Module, setting: Setting, stem: Path) -> Artifact:
    config = setting.config
    return export(student, stem, config.device.engine, config.task.max_tokens, setting.target, setting.container)
