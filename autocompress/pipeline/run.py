"""The main job: from a run file to a measured, proven, smaller model, or to why there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from autocompress.compression.methods import draw, read_plan, reshape_plan
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.config import RunConfig
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.bench import resumable
from autocompress.pipeline.candidates import Students, alternatives, anchors, space_of
from autocompress.pipeline.deliver import Measured, deliver, measure_all
from autocompress.pipeline.finalists import TEACHER, Made, export, make, refined
from autocompress.pipeline.layer_orders import layer_orders
from autocompress.pipeline.learning import learn, next_best
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.setting import Setting, prepare
from autocompress.pipeline.teacher import digest
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import CompressionPlan
from autocompress.report.values import RunReport
from autocompress.search.objective import Objective, Scored
from autocompress.search.records import Record, finalists, records
from autocompress.search.storage import bind, mend, open_study, storage_errors
from autocompress.search.study import search as run_study


@resumable()
def search(config: RunConfig, *, resume: bool = False, progress: Progress = quiet) -> RunReport:
    """Run the main job and return its report; the run's folder holds everything else.

    Args:
        config: The run file.
        resume: Go on with a run that was interrupted.
        progress: Told of every stage.

    Raises:
        AutoCompressError: See ``errors``; an infeasible budget is no error but a verdict.
    """
    workspace = Workspace.of(config)
    mend(workspace.storage(config))
    study = open_study(workspace.storage(config), config.name, resume=resume)
    workspace.create()
    if not resume:
        workspace.describe(config)
    progress = workspace.noting(progress)
    setting = prepare(config, progress, workspace.predictor(config) if resume else None, resume=resume)
    bind(study, _fingerprint(setting))
    if resume:  # Not before: a resumed run that was refused keeps its own run file.
        workspace.describe(config)
    workspace.keep(setting.predictor)
    students = setting.students(progress)
    with storage_errors(workspace.storage(config)):
        found = _search(study, setting, students, progress)
    made, measured = _finish(setting, students, workspace, found, progress)
    return deliver(setting, made, measured, found, workspace, progress)


def _finish(
    setting: Setting, students: Students, workspace: Workspace, found: Sequence[Record], progress: Progress
) -> tuple[list[Made], Measured]:
    """Make and measure the finalists; where none is inside the budget, those too that are foreseen to be now."""
    count = setting.config.search.finalists
    chosen = finalists(found, count)
    plans = [read_plan(record.plan) for record in chosen]
    made = make_all(setting, students, workspace, plans or [setting.feasibility.nearest])
    measured = measure_all(setting, made, progress)
    learnt = learn(setting, made, measured.by_name, workspace.learnt, progress)
    if not chosen or measured.inside(made):
        return made, measured
    known = {record.key for record in chosen}
    more = next_best(learnt, [record for record in found if record.key not in known], measured.limits, count)
    if more:
        progress("measure", 0, 1, f"no finalist is inside the budget; {len(more)} more are foreseen to be")
        made = make_all(setting, students, workspace, [*plans, *(read_plan(record.plan) for record in more)])
        measured = measure_all(setting, made, progress)
        learn(learnt, made, measured.by_name, workspace.learnt, progress)
    return made, measured


def _search(study: Any, setting: Setting, students: Students, progress: Progress) -> list[Record]:
    config, start = setting.config, students.start
    trials = config.search.trials if setting.feasibility.feasible else 0
    space = students.informed(space_of(config, start.shape, layer_orders(config, start, progress)))
    objective = Objective(
        draw=lambda trial: draw(trial, start.shape, space),
        reshape=lambda plan: reshape_plan(start.shape, plan),
        predict=lambda shape: setting.predictor.predict(shape, config.task.max_tokens),
        score=lambda plan: _score(plan, students, config),
        limits=setting.feasibility.limits,
    )
    deadline = time.monotonic() + config.search.hours * 3600
    tried = records(study)

    def on_record(record: Record) -> None:
        tried.append(record)
        if record.state == "over budget":
            return
        progress("search", min(trials, _scored(tried)), trials, _note(record, tried))

    fitting = f"{setting.feasibility.inside} of {setting.feasibility.candidates} shapes fit"
    progress("search", min(trials, _scored(tried)), trials, fitting)
    found = run_study(
        study,
        objective,
        trials=trials,
        seed=config.search.seed,
        anchors=list(anchors(start.shape, space, start.name).values()),
        out_of_time=lambda: time.monotonic() > deadline,
        on_record=on_record,
    )
    progress("search", trials, trials, f"{len(found)} candidates, {_scored(found)} scored")
    return found


def _score(plan: CompressionPlan, students: Students, config: RunConfig) -> Scored:
    student, task = students.make(plan), students.task(plan)
    score = task.evaluate(predict_with(student), "validation", limit=config.search.score_limit)
    return Scored(score.value, score.standard_error)


def _scored(found: Sequence[Record]) -> int:
    return len({record.key for record in found if record.score is not None})


def _note(record: Record, tried: Sequence[Record]) -> str:
    best = max((other.score for other in tried if other.score is not None), default=None)
    this = f"{record.score:.3f}" if record.score is not None else record.reason
    return f"#{record.number} {this} ({record.label})" + ("" if best is None else f", best {best:.3f}")


def _fingerprint(setting: Setting) -> str:
    """Digest everything that decides the sequence of candidates."""
    config = setting.config
    limits = {name: round(limit, 6) for name, limit in setting.feasibility.limits.items()}
    names = {"seed", "space", "distill_steps", "batch_size", "learning_rate", "score_limit", "variants"}
    return digest(
        setting.start.fingerprint,
        config.model.model_dump(mode="json", include={"student"}),
        config.search.model_dump(mode="json", include=names),
        config.device.model_dump(mode="json"),
        config.task.model_dump(mode="json", include={"max_tokens", "text"}),
        limits,
    )


def make_all(
    setting: Setting, students: Students, workspace: Workspace, chosen: Sequence[CompressionPlan]
) -> list[Made]:
    """Return the teacher, the alternatives and the finalists, in this order."""
    config, teacher, search = setting.config, setting.teacher, setting.config.search
    aware = QuantizationAwareStep(
        search.quantization_aware_steps, search.quantization_aware_learning_rate, seed=search.seed
    )

    def one(name: str, plan: CompressionPlan, *, finalist: bool) -> Made:
        return make(
            name,
            refined(plan, search.refine_steps, aware if finalist else None),
            config=config,
            students=students,
            workspace=workspace,
            target=setting.target,
            container=setting.container,
            finalist=finalist,
        )

    stem = workspace.students / TEACHER
    tokens = config.task.max_tokens
    artifact = export(teacher.model, stem, config.device.engine, tokens, setting.target, setting.container)
    validation = teacher.task.evaluate(predict_with(teacher.model), "validation").value
    made = [Made(TEACHER, CompressionPlan(), teacher.model, teacher.task, validation, artifact, finalist=False)]
    if config.search.baselines:
        start = students.start
        simple = alternatives(start.shape, space_of(config, start.shape), start.name)
        made += [one(name, plan, finalist=False) for name, plan in simple.items()]
    return made + [one(f"candidate {index + 1}", plan, finalist=True) for index, plan in enumerate(chosen)]
