"""What ``benchmarks.joint`` compares: ways to a smaller model that all get the same processor time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import optuna

from autocompress.compression.distillation import DistillStep
from autocompress.compression.methods import draw, read_plan
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.evaluation.task import predict_with
from autocompress.models.load import adapter_of
from autocompress.pipeline.bench import reach_runner
from autocompress.pipeline.candidates import Students, anchors, space_of
from autocompress.pipeline.finalists import TEACHER, Made, export, make, measure, refined
from autocompress.pipeline.guidance import guidance
from autocompress.pipeline.progress import quiet
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.trials import searched_space, try_candidates
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import Chosen, CompressionPlan
from autocompress.search.records import Record, front

Way: TypeAlias = Literal["joint", "random", "int8", "half depth, int8", "pruned, distilled, int8"]
WAYS: tuple[Way, ...] = ("joint", "random", "int8", "half depth, int8", "pruned, distilled, int8")
BUDGETS = (0.3, 0.2, 0.12, 0.08, 0.05)
"""Of the teacher's latency, both measured."""
GRID = ((1.0, 0.75), (1.0, 0.5), (0.75, 0.5), (0.5, 0.5), (0.5, 0.25))
"""Depths and widths that DynaBERT (Hou et al. 2020) is cut to, one for each budget."""
SEARCHED = 0.5
"""Of a search's time that candidates get; finalists get the rest."""
TIMED = (4, 12)
"""Steps of the trainings that say how long a step takes; what is the same in both takes no part."""
AWARE, AWARE_COST = 7, 1.5
"""One step with rounded weights for so many without, and what it costs beside one of those, with its scoring."""


@dataclass(frozen=True)
class Extent:
    """How long each way may take.

    Attributes:
        minutes: Of one core, processor time.
        budgets: See ``BUDGETS``.
    """

    minutes: float
    budgets: tuple[float, ...] = BUDGETS


@dataclass(frozen=True)
class Point:
    """One model that a way ends with.

    Attributes:
        label: Its shape.
        accuracy, standard_error: On test documents, 0 to 1.
        latency: Measured median, as a multiple of the teacher's in the same minutes.
        latency_ms: The same in milliseconds.
        size_bytes: Of the library.
        steps: It was trained for.
    """

    label: str
    accuracy: float
    standard_error: float
    latency: float
    latency_ms: float
    size_bytes: int
    steps: int


@dataclass(frozen=True)
class Outcome:
    """What one way found with one seed.

    Attributes:
        way: Of ``WAYS``.
        seed: Of everything.
        minutes: That it might take.
        points: Its models.
        candidates: Scored before, on any rung.
        cpu_s: Processor seconds that it took, but for measuring.
    """

    way: Way
    seed: int
    minutes: float
    points: Sequence[Point]
    candidates: int
    cpu_s: float


def run(way: Way, setting: Setting, extent: Extent) -> Outcome:
    """Let one way take its time, then export and measure what it found beside the teacher.

    Args:
        way: Of ``WAYS``.
        setting: Of a run whose seed is the way's.
        extent: How long it may take.
    """
    started = time.process_time()
    deadline = started + 60 * extent.minutes
    students = setting.students(quiet)
    tried = _searched(way, setting, students, started + SEARCHED * (deadline - started))
    plans = _chosen(tried, extent.budgets, setting) if tried else _simple(way, setting)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        workspace.create()
        made = [_teacher(setting, workspace)]
        for index, plan in enumerate(plans):
            share_s = (deadline - time.process_time()) / (len(plans) - index)
            made.append(_finished(f"{way} {index}", plan, share_s, setting, students, workspace))
        spent = time.process_time() - started
        points = _measured(setting, made)
    scored = sum(record.highest is not None for record in tried)
    return Outcome(way, setting.config.search.seed, extent.minutes, points, scored, round(spent, 1))


def _searched(way: Way, setting: Setting, students: Students, deadline_s: float) -> list[Record]:
    """Return the candidates of a search; none of the ways that do not search."""
    if way not in ("joint", "random"):
        return []
    config = setting.config
    if way == "random":
        chance = config.search.model_copy(update={"sampler": "random", "warm_start": 0, "rungs": ()})
        setting = replace(setting, config=config.model_copy(update={"search": chance}))
    space = searched_space(config, students, quiet)
    known = guidance(setting, students, space, quiet)
    first = [*anchors(students.start.shape, space).values(), *(known.warm if known else ())]
    study = optuna.create_study(directions=["maximize", "minimize"])

    def out_of_time() -> bool:
        return time.process_time() > deadline_s

    return try_candidates(study, setting, students, space, quiet, known, anchors=first, out_of_time=out_of_time)


def _chosen(tried: Sequence[Record], budgets: Sequence[float], setting: Setting) -> list[CompressionPlan]:
    """Return the best candidate inside each budget, each once."""
    tokens = setting.config.task.max_tokens
    teacher_ms = setting.predictor.predict(setting.teacher.shape, tokens).latency_p50_ms.value
    best = front(tried)
    found: dict[str, CompressionPlan] = {}
    for budget in budgets:
        inside = [record for record in best if record.latency_ms <= budget * teacher_ms]
        if inside:
            found[inside[-1].key] = read_plan(inside[-1].plan)
    return list(found.values())


def _simple(way: Way, setting: Setting) -> list[CompressionPlan]:
    """Return what the literature would do: rounding alone, half the layers, or DynaBERT's ratios."""
    if way == "int8":
        return [CompressionPlan(tuple(s for s in _cut(setting, 1.0, 1.0).steps if not isinstance(s, DistillStep)))]
    return [_cut(setting, depth, width) for depth, width in ([(0.5, 1.0)] if way == "half depth, int8" else GRID)]


def _cut(setting: Setting, depth: float, width: float) -> CompressionPlan:
    """Return a plan by the book: pruned, distilled, then int8.

    Layers are left out evenly, of each as many heads and neurons, by Taylor's first order as DynaBERT ranks them;
    nothing is repaired.
    """
    shape = setting.start.shape
    space = replace(
        space_of(setting.config, shape),
        depth=(round(depth * len(shape.layers)),),
        depth_selection=("uniform",),
        heads_keep=(width,),
        ffn_keep=(width,),
        heads_order=("taylor",),
        neurons_order=("taylor",),
        allocation=("uniform",),
        repair=("none",),
        attention_bits=(8,),
        ffn_bits=(8,),
        embedding_bits=(8,),
    )
    return draw(Chosen({}), shape, space)


def _finished(
    name: str, plan: CompressionPlan, seconds: float, setting: Setting, students: Students, workspace: Workspace
) -> Made:
    """Train a plan for so many processor seconds, and export what comes of it."""
    aware, steps = None, 0
    if any(isinstance(step, DistillStep) for step in plan.steps):
        steps = _steps(plan, seconds, students)
        search = setting.config.search
        aware = QuantizationAwareStep(steps // AWARE, search.quantization_aware_learning_rate, search.seed)
    return make(
        name,
        refined(plan, steps, aware),
        config=setting.config,
        students=students,
        workspace=workspace,
        target=setting.target,
        container=setting.container,
        finalist=True,
    )


def _steps(plan: CompressionPlan, seconds: float, students: Students) -> int:
    """Return how many steps fit, of which a part is trained again with rounded weights where bits are few."""
    started = time.process_time()
    marks = []
    for steps in TIMED:
        begun = time.process_time()
        students.make(refined(plan, steps))
        marks.append(time.process_time() - begun)
    step_s = max((marks[1] - marks[0]) / (TIMED[1] - TIMED[0]), 1e-3)
    left = seconds - (time.process_time() - started) - marks[0]
    few = refined(plan, 1, QuantizationAwareStep(1, 1e-4, 0)) != refined(plan, 1)
    return max(1, int(left / step_s / (1 + (AWARE_COST / AWARE if few else 0.0))))


def _teacher(setting: Setting, workspace: Workspace) -> Made:
    teacher, config = setting.teacher, setting.config
    artifact = export(teacher.model, workspace.students / TEACHER, config.device.engine, config.task.max_tokens)
    return Made(TEACHER, CompressionPlan(), teacher.model, teacher.task, 0.0, artifact, finalist=False)


def _measured(setting: Setting, made: Sequence[Made]) -> list[Point]:
    """Measure all in turn with the teacher, and ask all the test documents; the teacher is the first point."""
    vocabulary = min(adapter_of(each.student).shape(each.student).vocabulary for each in made)
    with reach_runner(setting.profile, keeps=len(made)) as runner:
        found = measure(made, runner, setting.profile, threads=setting.config.device.threads, vocabulary=vocabulary)
    whole_ms = found[TEACHER].latency_p50_ms
    points = []
    for each in made:
        score = each.task.evaluate(predict_with(each.student), "test")
        latency_ms = found[each.name].latency_p50_ms
        trained = [step.steps for step in each.plan.steps if isinstance(step, DistillStep)]
        points.append(
            Point(
                adapter_of(each.student).shape(each.student).describe(),
                score.value,
                score.standard_error,
                latency_ms / whole_ms,
                latency_ms,
                each.artifact.path.stat().st_size,
                sum(trained),
            )
        )
    return points
