"""What a study holds, as plain values: nothing outside this room sees a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.search.objective import Scored, limits_of, mean_latency
from autocompress.search.places import Ledger, rungs_of

State: TypeAlias = Literal["scored", "stopped", "over budget", "failed"]
"""``stopped``: scored on a rung below the top, and not among the best third there."""


@dataclass(frozen=True)
class Record:
    """One candidate of the search.

    Attributes:
        number: Its place in the sequence of candidates, from 0.
        trial: Its number in the storage; differs from ``number`` after an interruption, and where several worked.
        state: How far it came.
        params: What was chosen, by the names that the methods asked for.
        plan: The plan, as JSON values.
        cost: The predicted cost, as JSON values (``Cost.to_dict``).
        label: The shape in one line.
        violations: By what share each limit is exceeded (<= 0: inside).
        score: The metric on validation data, 0 to 1; ``None`` if it was not scored at the top of the ladder.
        standard_error: Of the score; 0 where it is not known, as in runs of older versions.
        rungs: Its scores on the rungs below the top that it reached.
        seconds: Time spent on scoring.
        reason: Why it failed.
        costs: Of a fleet, the predicted cost on each device; ``cost`` is that on the first.
    """

    number: int
    trial: int
    state: State
    params: Mapping[str, object]
    plan: Sequence[Mapping[str, object]]
    cost: Mapping[str, Mapping[str, float]]
    label: str
    violations: Mapping[str, float]
    score: float | None = None
    standard_error: float = 0.0
    rungs: Sequence[Scored] = ()
    seconds: float = 0.0
    reason: str = ""
    costs: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells this plan from others."""
        return plan_key(self.plan)

    @property
    def scored(self) -> Scored | None:
        """How good the student was, if it was scored."""
        return None if self.score is None else Scored(self.score, self.standard_error)

    @property
    def highest(self) -> Scored | None:
        """How good the student was on the highest rung that it reached, if any."""
        return self.scored or (self.rungs[-1] if self.rungs else None)

    @property
    def latency_ms(self) -> float:
        """Predicted median latency; of a fleet the ``mean_latency``."""
        return mean_latency([cost["latency_p50_ms"]["value"] for cost in self.costs.values() or [self.cost]])

    @property
    def inside(self) -> bool:
        """Whether every limit of every device is met."""
        return all(share <= 0 for share in self.violations.values())

    def on(self, device: str) -> Record:
        """Return the candidate as one device of a fleet sees it, with its own cost and limits alone; else as it is."""
        if not self.costs:
            return self
        return replace(self, cost=self.costs[device], violations=limits_of(device, self.violations), costs={})


def plan_key(plan: Sequence[Mapping[str, object]]) -> str:
    """Return one text for all equal plans, tuples and lists alike."""
    return json.dumps([dict(step) for step in plan], sort_keys=True)


def records(study: optuna.Study) -> list[Record]:
    """Return every candidate that has a result, in order; nothing is changed in the study."""
    ledger = Ledger(study)
    ledger.refresh()
    return [record_of(place, trial) for place, trial in ledger.results()]


def record_of(place: int, trial: FrozenTrial) -> Record:
    """Return what a trial says of the candidate at ``place``."""
    attributes = trial.user_attrs
    rungs = rungs_of(trial)
    states: dict[TrialState, State] = {TrialState.COMPLETE: "scored"}
    states[TrialState.PRUNED] = "stopped" if rungs else "over budget"
    candidate = attributes["candidate"]
    return Record(
        number=place,
        trial=trial.number,
        state=states.get(trial.state, "failed"),
        params=trial.params,
        plan=candidate["plan"],
        cost=candidate["cost"],
        label=candidate["label"],
        # Optuna counts those without a name, which the dashboard looks for.
        violations={name: share for name, share in trial.constraints.items() if not name.isdigit()},
        score=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        standard_error=attributes.get("standard_error", 0.0),
        rungs=rungs,
        seconds=attributes.get("seconds", 0.0),
        reason=attributes.get("reason", ""),
        costs=candidate.get("costs", {}),
    )


def front(candidates: Sequence[Record]) -> list[Record]:
    """Return the scored candidates that no other beats in score without being slower, fastest first."""
    best: list[Record] = []
    scored = [record for record in candidates if record.score is not None]
    for record in sorted(scored, key=lambda record: (record.latency_ms, -(record.score or 0.0))):
        if not best or (record.score or 0.0) > (best[-1].score or 0.0):
            best.append(record)
    return best


def finalists(candidates: Sequence[Record], count: int) -> list[Record]:
    """Return the ``count`` best scored candidates with different plans, the best first; ties go to the faster."""
    scored = sorted(
        (record for record in candidates if record.score is not None),
        key=lambda record: (-(record.score or 0.0), record.latency_ms, record.number),
    )
    unique: dict[str, Record] = {}
    for record in scored:
        unique.setdefault(record.key, record)
    return list(unique.values())[:count]


def nearest(candidates: Sequence[Record]) -> Record | None:
    """Return the candidate that exceeds the budget least: what is reachable when nothing fits."""
    foreseen = [record for record in candidates if record.violations]
    return min(foreseen, key=lambda record: (max(record.violations.values()), record.number), default=None)
