"""The main job: from a run file to a measured, proven, smaller model, or to why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from autocompress.compression.methods import read_plan
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.config import RunConfig
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.attaching import attach_results
from autocompress.pipeline.bench import resumable
from autocompress.pipeline.candidates import Students, alternatives, anchors, space_of
from autocompress.pipeline.deliver import Measured, deliver, measure_all
from autocompress.pipeline.finalists import TEACHER, Made, export, make, refined
from autocompress.pipeline.guidance import guidance
from autocompress.pipeline.joining import invite, kept_guidance
from autocompress.pipeline.launching import Launch, alone
from autocompress.pipeline.learning import learn, next_best
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.setting import Setting, prepare
from autocompress.pipeline.so_far import SoFar
from autocompress.pipeline.trials import STAGE, fingerprint_of, out_of, searched_space, try_candidates
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import CompressionPlan
from autocompress.report.values import RunReport
from autocompress.search.lease import Lease, only_search, refuse_second
from autocompress.search.records import Record, finalists, records
from autocompress.search.storage import bind, close, open_study, storage_errors


@resumable()
def search(config: RunConfig, *, resume: bool = False, progress: Progress = quiet, launch: Launch = alone) -> RunReport:
    """Run the main job and return its report; the run's folder holds everything else.

    Args:
        config: The run file.
        resume: Go on with a run that was interrupted.
        progress: Told of every stage.
        launch: Places workers while candidates are tried.

    Raises:
        AutoCompressError: See ``errors``; an infeasible budget is no error but a verdict.
    """
    workspace = Workspace.of(config)
    storage = workspace.storage(config)
    study = open_study(storage, config.name, resume=resume)
    with ExitStack() as held:
        held.callback(close, study)

        def be_the_only_one() -> Lease:
            with storage_errors(storage):
                return held.enter_context(only_search(study, partial(_wait, progress)))

        refuse_second(study)
        workspace.create()
        if not resume:
            lease = be_the_only_one()
            workspace.describe(config)
        progress = workspace.noting(progress)
        setting = prepare(config, progress, workspace.predictor(config) if resume else None, resume=resume)
        with storage_errors(storage):
            bind(study, fingerprint_of(setting))
        if resume:  # Not before: a resumed run that was refused keeps its study and its own run file as they were.
            lease = be_the_only_one()
            workspace.describe(config)
        workspace.keep(setting.predictor)
        students = setting.students(progress)
        with storage_errors(storage):
            so_far = SoFar(setting, students, workspace, records(study))
            found = _candidates(study, setting, students, so_far, progress, launch)
            lease.check()
        made, measured = _finish(setting, students, workspace, found, progress)
        report = deliver(setting, made, measured, found, workspace, progress)
        so_far.discard()
        with storage_errors(storage):
            attach_results(study, workspace, made, found, report)
        return report


def _wait(progress: Progress, host: str) -> None:
    progress(STAGE, 0, 1, f"waits to see whether a search on {host} still runs")


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


def _candidates(
    study: Any, setting: Setting, students: Students, so_far: SoFar, progress: Progress, launch: Launch
) -> list[Record]:
    config, start = setting.config, students.start
    space = searched_space(config, students, progress)
    known = kept_guidance(study) or guidance(setting, students, space, progress)
    warm = known.warm[: config.search.warm_start] if known else ()
    first = [*anchors(start.shape, space, start.name).values(), *warm]
    invite(study, setting, known)
    out_of_time = out_of(config.search.hours)
    with launch(config.name, Workspace.of(config).storage(config), progress):
        return try_candidates(
            study, setting, students, space, progress, known, anchors=first, out_of_time=out_of_time, on_record=so_far
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
