"""The candidates of a run, tried by this process and by all that joined it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.compression.methods import reshape_plan
from autocompress.config import RunConfig
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.candidates import Students, choices, space_of
from autocompress.pipeline.finalists import refined
from autocompress.pipeline.guidance import Guidance, proposer_of
from autocompress.pipeline.layer_orders import layer_orders
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.teacher import digest
from autocompress.plan import CompressionPlan
from autocompress.search.objective import Objective, Scored
from autocompress.search.records import Record, records
from autocompress.search.study import search

STAGE = "search"


def try_candidates(
    study: Any,
    setting: Setting,
    students: Students,
    space: Space,
    progress: Progress,
    known: Guidance | None,
    *,
    anchors: Sequence[Mapping[str, object]] | None,
    out_of_time: Callable[[], bool],
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Try candidates until the run has enough of them, and return all of them.

    Args:
        study: Of the run, tied to it.
        setting: What the run knows.
        students: Makes them.
        space: To draw from, with what was measured for it.
        progress: Told of each candidate, whoever scored it.
        known: What the search knew before its first candidate.
        anchors: Choices to try first; ``None``: those that the study keeps.
        out_of_time: Asked before each candidate.
        on_record: Told of each candidate too, after ``progress``.
    """
    config, start = setting.config, students.start
    trials = config.search.trials if setting.feasibility.feasible else 0
    told = _Told(records(study))

    def tell(record: Record) -> None:
        told.add(record)
        progress(STAGE, min(trials, told.scored), trials, told.note(record))
        on_record(record)

    def on_wait(in_work: int) -> None:
        progress(STAGE, min(trials, told.scored), trials, f"waits for {in_work} in work elsewhere")

    ended: list[str] = []
    fitting = f"{setting.feasibility.inside} of {setting.feasibility.candidates} shapes fit"
    progress(STAGE, min(trials, told.scored), trials, fitting)
    drawing = Drawing(start.shape, space)
    found = search(
        study,
        Objective(
            choices=choices(space),
            draw=lambda params: drawing(params).plan,
            reshape=lambda plan: reshape_plan(start.shape, plan),
            predict=lambda shape: setting.predictor.predict(shape, config.task.max_tokens),
            score=lambda plan: _score(plan, students, config),
            limits=setting.feasibility.limits,
            rungs=[partial(_score_after, steps, students, config) for steps in config.search.rungs],
        ),
        trials=trials,
        seed=config.search.seed,
        proposer=proposer_of(setting, drawing, known),
        parallel=config.search.parallel,
        anchors=anchors,
        out_of_time=out_of_time,
        on_record=tell,
        on_wait=on_wait,
        on_exhausted=lambda: ended.append("; nothing new inside the budget is left to try"),
    )
    counts = Counter(record.state for record in found)
    stopped = f", {counts['stopped']} stopped early" if config.search.rungs else ""
    progress(STAGE, trials, trials, f"{len(found)} candidates, {counts['scored']} scored{stopped}{''.join(ended)}")
    return found


def searched_space(config: RunConfig, students: Students, progress: Progress) -> Space:
    """Return what a search draws from, with what is measured for it."""
    start = students.start
    return students.informed(space_of(config, start.shape, layer_orders(config, start, progress)))


def out_of(hours: float) -> Callable[[], bool]:
    """Return what says whether so many hours have passed since now."""
    deadline = time.monotonic() + hours * 3600
    return lambda: time.monotonic() > deadline


class _Told:
    """What progress says of candidates: how many are scored, and the best."""

    def __init__(self, known: Sequence[Record]) -> None:
        self.scored, self._best = 0, -inf
        for record in known:
            self.add(record)

    def add(self, record: Record) -> None:
        """Count a candidate."""
        self.scored += record.highest is not None and record.state != "failed"
        if record.score is not None:
            self._best = max(self._best, record.score)

    def note(self, record: Record) -> str:
        """Return a line on a candidate."""
        this = record.reason or record.state
        if record.highest is not None and not record.reason:
            this = f"{record.highest.value:.3f}" + (f", stopped on rung {len(record.rungs)}" * (record.score is None))
        best = "" if self._best == -inf else f", best {self._best:.3f}"
        return f"#{record.number} {this} ({record.label}){best}"


def _score(plan: CompressionPlan, students: Students, config: RunConfig) -> Scored:
    student, task = students.make(plan), students.task(plan)
    score = task.evaluate(predict_with(student), "validation", limit=config.search.score_limit)
    return Scored(score.value, score.standard_error)


def _score_after(steps: int, students: Students, config: RunConfig, plan: CompressionPlan) -> Scored:
    return _score(refined(plan, steps), students, config)


def fingerprint_of(setting: Setting) -> str:
    """Digest everything that decides the sequence of candidates."""
    config = setting.config
    limits = {name: round(limit, 6) for name, limit in setting.feasibility.limits.items()}
    chosen = {"seed", "sampler", "parallel", "warm_start", "space"}
    trained = {"rungs", "distill_steps", "batch_size", "learning_rate", "score_limit", "variants"}
    return digest(
        setting.start.fingerprint,
        config.model.model_dump(mode="json", include={"student"}),
        config.search.model_dump(mode="json", include=chosen | trained),
        config.device.model_dump(mode="json"),
        config.task.model_dump(mode="json", include={"max_tokens", "text"}),
        setting.feasibility.source,
        limits,
    )
