"""Distillation: the student is trained by a recipe (``recipes.table``), most of which ask the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.table import RECIPES
from autocompress.plan import RecipeName, Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class DistillStep:
    """How a student is trained.

    Attributes:
        steps: Optimizer steps; 0 trains nothing.
        learning_rate: Peak, after a linear warm-up.
        seed: Of the order of batches and of dropout.
        recipe: Key of ``RECIPES``.
    """

    method: ClassVar[str] = "distill"
    steps: int
    learning_rate: float
    seed: int
    recipe: RecipeName = "logits"


STEP = DistillStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> DistillStep:
    """Choose the recipe; steps and rate are the same for every candidate, so that candidates compare."""
    recipe: RecipeName = trial.suggest_categorical("recipe", space.recipe)
    return DistillStep(space.distill_steps, space.learning_rate, space.seed, recipe)


def reshape(shape: ModelShape, step: DistillStep) -> ModelShape:
    """Return ``shape`` itself: training changes no width."""
    return shape


def apply(model: nn.Module, step: DistillStep, context: Context) -> nn.Module:
    """Train ``model`` on ``step.steps`` batches."""
    if step.steps:
        recipe = RECIPES[step.recipe]
        fit(model, recipe, context, steps=step.steps, learning_rate=step.learning_rate, seed=step.seed)
    return model
