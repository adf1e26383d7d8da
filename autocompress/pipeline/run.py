"""The main job: from a run file to a measured, proven, smaller model, or to why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from autocompress.compression.methods import read_plan
from autocompress.config import RunConfig
from autocompress.pipeline.attaching import attach_results
from autocompress.pipeline.bench import resumable
from autocompress.pipeline.candidates import Students, anchors
from autocompress.pipeline.deliver import Finished, Measured, measure_all
from autocompress.pipeline.finalists import Made
from autocompress.pipeline.fleet import deliver_all
from autocompress.pipeline.guidance import guidance, warm_start
from autocompress.pipeline.joining import invite, kept_guidance
from autocompress.pipeline.launching import Launch, alone
from autocompress.pipeline.learning import learn, next_best
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.setting import Setting, prepare
from autocompress.pipeline.so_far import SoFar
from autocompress.pipeline.trials import STAGE, fingerprint_of, out_of, searched_space, try_candidates
from autocompress.pipeline.workshop import Workshop
from autocompress.pipeline.workspace import Workspace
from autocompress.report.values import RunReport
from autocompress.search.lease import Lease, only_search, refuse_second
from autocompress.search.records import Record, finalists, records
from autocompress.search.storage import bind, close, open_study, storage_errors


@resumable()
def search(config: RunConfig, *, resume: bool = False, progress: Progress = quiet, launch: Launch = alone) -> RunReport:
    """Run the main job and return its report, of a fleet that of the first device; the folder holds everything else.

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
        setting = prepare(config, progress, workspace.predictor if resume else None, resume=resume)
        with storage_errors(storage):
            bind(study, fingerprint_of(setting))
        if resume:  # Not before: a resumed run that was refused keeps its study and its own run file as they were.
            lease = be_the_only_one()
            workspace.describe(config)
        places = _places(setting, workspace)
        students = setting.students(progress)
        with storage_errors(storage):
            tried = records(study)
            so_far = [
                SoFar(seen, students, place, [record.on(name) for record in tried])
                for name, (seen, place) in places.items()
            ]
            found = _candidates(study, setting, students, so_far, progress, launch)
            lease.check()
        finished = _finish(places, students, found, progress)
        report = deliver_all(finished, progress)
        for pack in so_far:
            pack.discard()
        with storage_errors(storage):
            attach_results(study, workspace.attached, list(finished.values()))
        return report


def _wait(progress: Progress, host: str) -> None:
    progress(STAGE, 0, 1, f"waits to see whether a search on {host} still runs")


def _places(setting: Setting, workspace: Workspace) -> dict[str, tuple[Setting, Workspace]]:
    """Return how each device sees the run, and where what is its own is kept, by the device's name."""
    first, *others = setting.everywhere
    places = {first: (setting, workspace)} | {name: (setting.everywhere[name], workspace.on(name)) for name in others}
    for seen, place in places.values():
        place.create()
        place.keep(seen.predictor)
    return places


def _finish(
    places: Mapping[str, tuple[Setting, Workspace]], students: Students, found: Sequence[Record], progress: Progress
) -> dict[str, Finished]:
    """Make and measure the finalists of each device, and of several those that are foreseen to fit all of them."""
    shop, finished = Workshop(students), {}
    fit_all = [record for record in found if record.inside]
    for name, (seen, place) in places.items():
        theirs = [record.on(name) for record in found]
        shared = finalists(fit_all, seen.config.search.finalists)
        made, measured = _finish_on(seen, shop, place, theirs, shared, progress)
        finished[name] = Finished(seen, place, made, measured, theirs)
    return finished


def _finish_on(
    setting: Setting,
    shop: Workshop,
    workspace: Workspace,
    found: Sequence[Record],
    fit_all: Sequence[Record],
    progress: Progress,
) -> tuple[list[Made], Measured]:
    """Make and measure a device's finalists; where none is inside the budget, those too that are foreseen to be now."""
    count = setting.config.search.finalists
    chosen = finalists([record for record in found if record.inside], count)
    plans = list(dict.fromkeys(read_plan(record.plan) for record in (*chosen, *fit_all)))
    made = shop.make_all(setting, workspace, plans or [setting.feasibility.nearest])
    measured = measure_all(setting, made, progress)
    learnt = learn(setting, made, measured.by_name, workspace.learnt, progress)
    if not chosen or measured.inside(made):
        return made, measured
    known = {record.key for record in (*chosen, *fit_all)}
    more = next_best(learnt, [record for record in found if record.key not in known], measured.limits, count)
    if more:
        progress("measure", 0, 1, f"no finalist is inside the budget; {len(more)} more are foreseen to be")
        made = shop.make_all(setting, workspace, [*plans, *(read_plan(record.plan) for record in more)])
        measured = measure_all(setting, made, progress)
        learn(learnt, made, measured.by_name, workspace.learnt, progress)
    return made, measured


def _candidates(
    study: Any,
    setting: Setting,
    students: Students,
    so_far: Sequence[SoFar],
    progress: Progress,
    launch: Launch,
) -> list[Record]:
    config, start = setting.config, students.start
    space = searched_space(config, students, progress)
    known = kept_guidance(study) or guidance(setting, students, space, progress)
    first = [*anchors(start.shape, space, start.name).values(), *warm_start(setting, known)]
    invite(study, setting, known)
    out_of_time = out_of(config.search.hours)

    def pack(record: Record) -> None:
        for name, best in zip(setting.everywhere, so_far, strict=True):
            best(record.on(name))

    with launch(config.name, Workspace.of(config).storage(config), progress):
        return try_candidates(
            study, setting, students, space, progress, known, anchors=first, out_of_time=out_of_time, on_record=pack
        )
