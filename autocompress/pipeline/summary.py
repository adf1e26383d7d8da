"""From what a run found to the values of its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import mean

from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.cost import Cost, Estimate
from autocompress.models.load import adapter_of
from autocompress.pipeline.candidates import anchors, choices, space_of
from autocompress.pipeline.finalists import TEACHER, Made
from autocompress.pipeline.outcome import Outcome
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import Workspace, versions
from autocompress.predictors.predictor import FittedPredictor
from autocompress.report.units import TITLES, figure
from autocompress.report.values import (
    BaselineRow,
    CandidateRow,
    FailureRow,
    GoalRow,
    LimitRow,
    Moment,
    Pair,
    ParityRow,
    PredictorHealth,
    RunReport,
    Stage,
    Verdict,
)
from autocompress.search.records import Record, plan_key

NONE = "none"
"""How a predictor's provenance says that there was nothing."""


def summarize(setting: Setting, outcome: Outcome, found: Sequence[Record]) -> RunReport:
    """Return the report of a run."""
    config = setting.config
    goal = _goal(setting, outcome)
    verdict = _verdict(setting, outcome, goal)
    return RunReport(
        title=f"{config.name}: {config.model.source.split('/')[0]} on {setting.profile.title}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=setting.profile.name,
        engine=config.device.engine,
        threads=config.device.threads,
        verdict=verdict,
        blocked="" if verdict in ("pass", "estimated") else _blocked(setting, outcome, goal),
        reachable="" if verdict in ("pass", "estimated") else _reachable(setting),
        limits=tuple(_limits(setting, outcome)),
        goal=goal,
        candidates=tuple(_candidates(setting, outcome, found)),
        baselines=tuple(_baselines(outcome)),
        predictor=_health(setting, outcome),
        failures=tuple(_failures(outcome, found)),
        parity=tuple(_parity(outcome)),
        reproduction=(f"autocompress search {Workspace.of(config).config} name={config.name}-again",),
        versions=versions(),
        emulated=setting.profile.emulated if outcome.measured else "",
    )


def _cost(setting: Setting, made: Made) -> Cost:
    shape = adapter_of(made.student).shape(made.student)
    return setting.predictor.predict(shape, setting.config.task.max_tokens)


def _goal(setting: Setting, outcome: Outcome) -> GoalRow:
    scores = outcome.agreements if setting.config.goal.objective == "fidelity" else outcome.scores
    student = scores[outcome.winner.name]
    return GoalRow(
        metric=student.metric,
        teacher=scores[TEACHER].value,
        student=student.value,
        standard_error=student.standard_error,
        examples=student.count,
        max_drop_points=setting.config.goal.max_drop_points,
    )


def _verdict(setting: Setting, outcome: Outcome, goal: GoalRow) -> Verdict:
    if not setting.feasibility.feasible:
        return "infeasible"
    if outcome.broken or not goal.passed:
        return "fail"
    # What an emulator measured says nothing of how fast a device is.
    return "pass" if outcome.measured and not setting.profile.emulated else "estimated"


def _blocked(setting: Setting, outcome: Outcome, goal: GoalRow) -> str:
    """Say which limit or goal blocks, and by how much."""
    if not setting.feasibility.feasible:
        held = setting.feasibility.nearest_cost.held()
        parts = [
            f"{TITLES[name]}: the limit is {figure(name, setting.feasibility.limits[name])},"
            f" the nearest candidate is held to {figure(name, held[name])}"
            for name in setting.feasibility.blocking()
        ]
    else:
        measured = outcome.measured[outcome.winner.name].figures() if outcome.broken else {}
        word = "emulated" if setting.profile.emulated else "measured"
        parts = [
            f"{TITLES[name]}: {figure(name, measured[name])} {word}, {figure(name, outcome.limits[name])} allowed"
            for name in outcome.broken
        ]
        if not goal.passed:
            parts.append(f"{goal.metric} drops by {goal.drop_points:.2f} points, {goal.max_drop_points:g} are allowed")
    return "Blocked by " + "; ".join(parts) + "."


def _reachable(setting: Setting) -> str:
    parts = [
        f"{TITLES[reach.name]} from {figure(reach.name, reach.least)}"
        for reach in setting.feasibility.reaches
        if reach.limit is not None
    ]
    return "Reachable, each alone: " + ", ".join(parts) + "."


def _limits(setting: Setting, outcome: Outcome) -> list[LimitRow]:
    predicted, measured = _cost(setting, outcome.winner), outcome.measured.get(outcome.winner.name)
    return [
        LimitRow(
            name=name,
            budget=outcome.limits.get(name),
            predicted=getattr(predicted, name),
            measured=None if measured is None else measured.figures().get(name),
        )
        for name in predicted.figures()
    ]


def _candidates(setting: Setting, outcome: Outcome, found: Sequence[Record]) -> list[CandidateRow]:
    start = setting.start
    space = space_of(setting.config, start.shape)
    several = {name for name, values in choices(space).items() if len(values) > 1}
    names = {_params_key(params, several): name for name, params in anchors(start.shape, space, start.name).items()}
    finalists = {plan_identity(item.plan.to_json()): item for item in outcome.made if item.finalist}
    rows, seen = [], set()
    for record in found:
        key = plan_identity(record.plan)
        if record.state == "failed" or key in seen:
            continue
        seen.add(key)
        made = finalists.get(key)
        measurement = outcome.measured.get(made.name) if made else None
        rows.append(
            CandidateRow(
                number=record.number,
                stage=_stage(record, made, outcome),
                label=names.get(_params_key(record.params, several), ""),
                plan_summary=record.label,
                score=None if record.highest is None else record.highest.value,
                standard_error=0.0 if record.highest is None else record.highest.standard_error,
                latency_p50_ms=_estimate(record, "latency_p50_ms"),
                measured_p50_ms=None if measurement is None else measurement.latency_p50_ms,
                peak_memory_bytes=_estimate(record, "peak_memory_bytes").value,
                size_bytes=_estimate(record, "size_bytes").value,
                violated=tuple(name for name, share in record.violations.items() if share > 0),
            )
        )
    return rows


def _stage(record: Record, made: Made | None, outcome: Outcome) -> Stage:
    if record.state == "over budget":
        return "infeasible"
    if record.state == "stopped":
        return "stopped"
    if made is None:
        return "scored"
    return "exported" if made is outcome.winner else "refined"


def _estimate(record: Record, name: str) -> Estimate:
    return Estimate(**record.cost[name])


def _params_key(params: Mapping[str, object], several: Set[str]) -> str:
    return str(sorted((name, value) for name, value in params.items() if name in several))


def plan_identity(plan: Sequence[Mapping[str, object]]) -> str:
    """Identify a plan whatever its training, which differs between trial and finalist."""
    kept = [step for step in plan if step["method"] != QuantizationAwareStep.method]
    return plan_key([{key: value for key, value in step.items() if key != "steps"} for step in kept])


def _baselines(outcome: Outcome) -> list[BaselineRow]:
    rows, scores, agreements = [], outcome.scores, outcome.agreements
    for item in outcome.made:
        if item.name not in outcome.measured or (item.finalist and item is not outcome.winner):
            continue
        measured, score, agreement = outcome.measured[item.name], scores.get(item.name), agreements.get(item.name)
        rows.append(
            BaselineRow(
                name="found here" if item is outcome.winner else item.name,
                role="student" if item is outcome.winner else "teacher" if item.name == TEACHER else "baseline",
                score=None if score is None else score.value,
                latency_p50_ms=measured.latency_p50_ms,
                latency_p95_ms=measured.latency_p95_ms,
                peak_memory_bytes=measured.peak_memory_bytes,
                size_bytes=measured.size_bytes,
                samples=len(measured.samples_ms),
                agreement=None if agreement is None else agreement.value,
            )
        )
    return rows


def _health(setting: Setting, outcome: Outcome) -> PredictorHealth:
    costs = {item.name: _cost(setting, item) for item in outcome.made}
    pairs = tuple(
        Pair(name, costs[name].latency_p50_ms, measured.latency_p50_ms) for name, measured in outcome.measured.items()
    )
    predictor = setting.predictor
    if not isinstance(predictor, FittedPredictor):
        return PredictorHealth(costs[TEACHER].source, calibrated=False, samples=0, pairs=pairs)
    errors = predictor.held_out["latency_p50_ms"]
    told, held_out = predictor.provenance, _held_out(predictor)
    return PredictorHealth(
        source=predictor.source,
        calibrated=not predictor.emulator,
        samples=len(predictor.samples),
        held_out_mape=errors.mape,
        within_10_percent=errors.within_10_percent,
        coverage=mean(pair.covered for pair in held_out) if held_out else None,
        pairs=pairs,
        held_out=held_out,
        timeline=tuple(Moment(**asdict(moment)) for moment in predictor.timeline),
        episodes=tuple(line for line in told.get("episodes", NONE).split("; ") if line != NONE),
        failed="" if (failed := told.get("failures", NONE)) == NONE else failed,
        emulator=predictor.emulator,
    )


def _held_out(predictor: FittedPredictor) -> tuple[Pair, ...]:
    """Return what fits without each sample say of its latency, of those that were drawn as new shapes are."""
    said = predictor.figures["latency_p50_ms"].left_out().tolist()
    return tuple(
        Pair(sample.shape.describe(), Estimate(*estimate), float(sample.latency_p50_ms))
        for estimate, sample in zip(said, predictor.samples, strict=False)
        if sample.drawn
    )


def _failures(outcome: Outcome, found: Sequence[Record]) -> list[FailureRow]:
    omitted = [FailureRow(f"no {engine} artifact: {reason}", 1) for engine, reason in outcome.omitted.items()]
    reasons = Counter(record.reason for record in found if record.state == "failed")
    return omitted + [FailureRow(reason, count) for reason, count in reasons.items()]


def _parity(outcome: Outcome) -> list[ParityRow]:
    return [
        ParityRow(
            engine=value.engine,
            max_abs_logit_diff=value.max_abs_logit_diff,
            tolerance=value.logit_tolerance,
            argmax_agreement=value.argmax_agreement,
            torch_score=value.student_score,
            artifact_score=value.artifact_score,
            passed=value.passed,
            beyond=value.beyond,
        )
        for value in outcome.parities
    ]
