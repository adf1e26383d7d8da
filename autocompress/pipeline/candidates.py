"""What a run may choose from, and what comes of a choice: a student, foreseen or made."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import product
from math import ceil
from typing import TypeVar

import torch
from torch import nn

from autocompress.compression import factorize
from autocompress.compression.depth import MAPS, DepthStep, select, uniform
from autocompress.compression.distillation import DistillStep
from autocompress.compression.drawing import Drawing, Drawn
from autocompress.compression.factorize import FactorizeStep
from autocompress.compression.hidden import HiddenStep
from autocompress.compression.method import Context, LayerImportance, Space, of_layer
from autocompress.compression.methods import apply_plan
from autocompress.compression.order import Rankings
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.ranking.channel_importance import channel_scores, order_hidden
from autocompress.compression.recipes.store import OutputStore
from autocompress.compression.recipes.teacher import Keeping, TeacherOutputs
from autocompress.compression.repairs.sublayers import Documents, documents_of
from autocompress.compression.rounding.sensitivity import sensitivities
from autocompress.compression.vocabulary import VocabularyStep
from autocompress.config import RunConfig
from autocompress.engines import STORED_AS
from autocompress.evaluation.task import Task
from autocompress.pipeline.alignment import align_of
from autocompress.pipeline.lessons import Lessons
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.start import Start
from autocompress.pipeline.teacher import Teacher, training_batches
from autocompress.pipeline.vocabulary import Vocabularies, token_counts
from autocompress.plan import CompressionPlan, Criterion, LayerSelection
from autocompress.search_space import COVERAGE
from autocompress.shape import Bits, EmbeddingBits, ModelShape, by_block
from autocompress.training.batches import TrainingBatch
from autocompress.training.checkpoint import Checkpoint

V = TypeVar("V")

RANKING_BATCHES = 8
"""Training batches on which the importance of units is measured."""
SHAPELESS = (
    *("heads_order", "neurons_order", "allocation", "repair", "recipe"),
    *("rounding", "bits_allocation", "activations", "weight_group", "zero_points"),
)
"""Choices that change no width, or only how layers share it or how its weights are read and scaled."""
OF_LAYERS = ("heads_keep", "ffn_keep", "attention_bits", "ffn_bits")
"""Choices that each layer may have for itself."""
SHARING = ("allocation", "bits_allocation")
"""Choices of how layers share, which say nothing then."""
KEPT_STUDENTS = 4
"""Distilled students kept in memory: candidates that differ only in bits share one."""


def space_of(
    config: RunConfig, shape: ModelShape, layer_orders: Mapping[LayerSelection, tuple[int, ...]] | None = None
) -> Space:
    """Return the space of a run, with depths from a third of the layers to all where the run names none.

    Args:
        config: The run file.
        shape: Of what students are made of.
        layer_orders: See ``Space``; only drawing needs them, of the selections that are measured.

    Raises:
        ConfigError: There is no such depth, or it is no wider than a rank.
        UnsupportedError: A selection does not know which layers make one of the depths.
    """
    layers = len(shape.layers)
    chosen, engines = config.search.space, [device.engine for device in (config.device, *config.fleet)]
    depths = chosen.depth or tuple(range(ceil(layers / 3), layers + 1))
    for depth, selection in product(depths, chosen.depth_selection):
        select(selection if selection in MAPS else "uniform", layers, depth, {})
    for rank in chosen.embedding_rank:
        factorize.reshape(shape, FactorizeStep(rank))
    table: tuple[EmbeddingBits, ...] = chosen.embedding_bits if shape.pixels is None else (32,)
    return Space(
        depth=depths,
        depth_selection=chosen.depth_selection,
        layer_orders=layer_orders or {},
        hidden_keep=chosen.hidden_keep,
        heads_keep=chosen.heads_keep,
        ffn_keep=chosen.ffn_keep,
        attention_bits=chosen.attention_bits,
        ffn_bits=chosen.ffn_bits,
        embedding_bits=table,
        head_bits=chosen.head_bits,
        align=align_of(config, shape),
        heads_order=chosen.heads_order,
        neurons_order=chosen.neurons_order,
        allocation=chosen.allocation,
        repair=chosen.repair,
        repair_batches=chosen.repair_batches,
        rounding=chosen.rounding,
        bits_allocation=chosen.bits_allocation,
        rounding_batches=chosen.rounding_batches,
        stored_as={bits: wide for engine in engines for bits, wide in STORED_AS.get(engine, {}).items()},
        activations=chosen.activations,
        ranges=chosen.ranges,
        smoothing=chosen.smoothing,
        weight_group=chosen.weight_group,
        zero_points=chosen.zero_points,
        vocabulary_keep=chosen.vocabulary_keep,
        embedding_rank=chosen.embedding_rank,
        tokens_keep=chosen.tokens_keep,
        max_tokens=config.task.max_tokens,
        positions=chosen.positions,
        recipe=chosen.recipe,
        distill_steps=config.search.distill_steps,
        learning_rate=config.search.learning_rate,
        seed=config.search.seed,
        own_layers=tuple(range(layers)) if chosen.per_layer else (),
    )


def choices(space: Space) -> dict[str, tuple[object, ...]]:
    """Return the choices of each parameter that the methods ask for."""
    widths = ("vocabulary_keep", "depth", "depth_selection", "hidden_keep", "heads_keep", "ffn_keep", "embedding_rank")
    names = (*widths, "tokens_keep", *SHAPELESS, "attention_bits", "ffn_bits", "embedding_bits", "head_bits")
    return as_asked({name: getattr(space, name) for name in names}, space)


def as_asked(params: Mapping[str, V], space: Space) -> dict[str, V]:
    """Return what all layers share, by name, as ``space`` asks for it: each layer's own where it has these."""
    if not space.own_layers:
        return dict(params)
    own = {of_layer(name, layer): params[name] for layer in space.own_layers for name in OF_LAYERS}
    return own | {name: value for name, value in params.items() if name not in (*OF_LAYERS, *SHARING)}


def every_plan(shape: ModelShape, space: Space) -> Iterator[tuple[dict[str, object], Drawn]]:
    """Yield each combination of choices with what comes of it; the same plan may come up twice."""
    options, drawing = choices(space), Drawing(shape, space)
    for values in product(*options.values()):
        params = dict(zip(options, values, strict=True))
        yield params, drawing(params)


def anchors(shape: ModelShape, space: Space, name: str = "teacher") -> dict[str, dict[str, object]]:
    """Return the choices that are tried first, by name: the obvious ones, as far as ``space`` holds them.

    Args:
        shape: Of what students are made of.
        space: Of the run.
        name: Of what they are made of.
    """
    layers = len(shape.layers)

    def params(depth: int, bits: int) -> dict[str, object]:
        kept = {"depth": depth, "depth_selection": space.depth_selection[0]}
        widths = {"vocabulary_keep": 1.0, "hidden_keep": 1.0, "heads_keep": 1.0, "ffn_keep": 1.0, "embedding_rank": 0}
        first = {name: getattr(space, name)[0] for name in (*SHAPELESS, "head_bits")}
        first["tokens_keep"] = 1.0 if "all" not in space.tokens_keep else "all"
        table = bits if shape.pixels is None else 32  # Patches have no table.
        bits_of = {"attention_bits": bits, "ffn_bits": bits, "embedding_bits": table}
        return as_asked({**kept, **widths, **first, **bits_of}, space)

    half = max(1, layers // 2)
    named = {
        name: params(layers, 32),
        f"int8 {name}": params(layers, 8),
        "half depth": params(half, 32),
        "half depth, int8": params(half, 8),
    }
    options = choices(space)
    return {
        title: choice
        for title, choice in named.items()
        if all(value in options[parameter] for parameter, value in choice.items())
    }


def alternatives(shape: ModelShape, space: Space, name: str = "teacher") -> dict[str, CompressionPlan]:
    """Return what one would do without a search: rounding alone, and half the layers distilled; see ``anchors``."""
    layers = len(shape.layers)
    eight: tuple[Bits, ...] = tuple(8 for _ in range(layers))
    half = DepthStep(uniform(layers, max(1, layers // 2)))
    distill = DistillStep(space.distill_steps, space.learning_rate, space.seed)
    return {
        f"int8 {name}": CompressionPlan((QuantizeStep(*by_block(eight, eight), 8 if shape.pixels is None else 32),)),
        "half depth": CompressionPlan((half, distill)),
    }


class Students:
    """Makes students of plans: importance is measured once, distilled students are shared between bit widths.

    Args:
        teacher: They learn from it.
        start: They are made of it; by default of the teacher.
        batch_size: Documents a training step.
        seed: Of the batches on which is measured.
        coverage: See ``Vocabularies``.
        lessons: What recipes read beside the training documents.
        store: Where what the teacher gives is kept.
        device: Where they are trained.
        progress: Told of every step.
    """

    def __init__(
        self,
        teacher: Teacher,
        start: Start | None = None,
        *,
        batch_size: int,
        seed: int,
        coverage: float = COVERAGE,
        lessons: Lessons | None = None,
        store: OutputStore | None = None,
        device: torch.device | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.start = start = start or Start.of(teacher)
        self._lessons, self._progress = lessons, progress
        self._batch_size, self._seed, self._device = batch_size, seed, device or torch.device("cpu")
        self._vocabularies = Vocabularies(start.model, start.task, coverage=coverage, counterparts=start.counterparts)
        keeping = None if store is None else Keeping(store, teacher.fingerprint, start.task.tokens("train"))
        read = partial(teacher.task.gather, "train")
        self._outputs = TeacherOutputs(teacher.model, read=read, keeping=keeping)
        self._rankings = Rankings(start.model, lambda: list(self._batches(start.task, RANKING_BATCHES, seed)))
        self._documents = lru_cache(maxsize=1)(self._read_documents)
        self._distilled: OrderedDict[str, nn.Module] = OrderedDict()

    def task(self, plan: CompressionPlan) -> Task:
        """Return the task as the student of ``plan`` reads it: of text, with its own tokenizer."""
        return self._vocabularies.task(plan)

    @cached_property
    def _hidden_ordered(self) -> nn.Module:
        """The start with its hidden channels in order of importance."""
        scores = channel_scores(self.start.model, self._batches(self.start.task, RANKING_BATCHES, self._seed))
        return order_hidden(copy.deepcopy(self.start.model), scores)

    def _batches(self, task: Task, steps: int, seed: int) -> Iterator[TrainingBatch]:
        return training_batches(task, steps, batch_size=self._batch_size, seed=seed)

    def _context(self, plan: CompressionPlan, stage: str, start: nn.Module) -> Context:
        def on_step(step: int, total: int, loss: float) -> None:
            self._progress(stage, step, total, f"loss {loss:.3f}")

        task = self.task(plan)
        dense = CompressionPlan(tuple(step for step in plan.steps if isinstance(step, VocabularyStep)))
        translation = self._vocabularies.translation(plan)
        context = Context(
            batches=partial(self._batches, task),
            teacher=self._outputs.for_tokens(translation, task.tokens("train")),
            on_step=on_step,
            rankings=self._rankings,
            documents=partial(self._documents, start, dense),
            token_order=self._vocabularies.order,
            token_counts=partial(token_counts, task),
            device=self._device,
        )
        if self._lessons is None:
            return context
        varied, text = (partial(make, task, translation) for make in (self._lessons.varied, self._lessons.text))
        return replace(context, varied=varied, text=text)

    def _read_documents(self, start: nn.Module, dense: CompressionPlan, batches: int, seed: int) -> Documents:
        """Run what a repair compares with: the start, with the student's tokens where these are fewer."""
        context = self._context(dense, "repair", start)
        return documents_of(apply_plan(start, dense, context), context.batches(batches, seed))

    def informed(self, space: Space) -> Space:
        """Return ``space`` with the importance of units and the sensitivity of layers, where a choice reads these."""
        if "global" in space.bits_allocation:
            batches = list(self._batches(self.start.task, RANKING_BATCHES, self._seed))
            widths = {"attention_bits": space.attention_bits, "ffn_bits": space.ffn_bits}
            space = replace(space, sensitivity=sensitivities(self.start.model, batches, **widths))
        if "global" not in space.allocation:
            return space
        criteria: dict[Criterion, None] = dict.fromkeys((*space.heads_order, *space.neurons_order))
        return replace(space, importance={name: self._importance(name) for name in criteria})

    def _importance(self, criterion: Criterion) -> tuple[LayerImportance, ...]:
        found = self._rankings(criterion)
        return tuple(LayerImportance(layer.heads.importance, layer.neurons.importance) for layer in found)

    def make(self, plan: CompressionPlan, stage: str = "distill", *, checkpoint: Checkpoint | None = None) -> nn.Module:
        """Return the student of ``plan``, in eval mode; the same plan always gives the same student.

        Args:
            plan: What to do to the start.
            stage: What progress calls its trainings.
            checkpoint: Where these keep their states; for this plan, or parts of it, alone.
        """
        cut = 1 + max((i for i, step in enumerate(plan.steps) if isinstance(step, DistillStep)), default=-1)
        trained, rest = CompressionPlan(plan.steps[:cut]), CompressionPlan(plan.steps[cut:])
        # Only then, as sums over channels in another order differ by rounding.
        narrow = any(isinstance(step, HiddenStep) and step.keep < self.start.shape.hidden for step in plan.steps)
        start = self._hidden_ordered if narrow else self.start.model
        key = json.dumps([narrow, trained.to_json()])
        context = replace(self._context(plan, stage, start), checkpoint=checkpoint)
        if key not in self._distilled:
            self._distilled[key] = apply_plan(start, trained, context)
        self._distilled.move_to_end(key)
        while len(self._distilled) > KEPT_STUDENTS:
            self._distilled.popitem(last=False)
        unrounded = self._distilled[key]
        return apply_plan(unrounded, rest, replace(context, unrounded=unrounded))
