"""What a run says about itself, as frozen values that read and write as JSON.

A score is a fraction of 1; points are hundredths of it. Everything that follows from other fields is a property, so a
report cannot contradict itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from autocompress.cost import Estimate
from autocompress.errors import StorageError

R = TypeVar("R")
AGREEMENT = "agreement with the teacher"
"""The metric of a run whose objective is fidelity."""
Stage: TypeAlias = Literal["infeasible", "stopped", "scored", "refined", "exported"]
Verdict: TypeAlias = Literal["pass", "fail", "infeasible", "estimated"]


@dataclass(frozen=True)
class LimitRow:
    """One figure of the exported artifact against what the user allows.

    Attributes:
        name: One of ``cost.LIMITS``; the figures below are in its unit.
        budget: The limit in absolute units; ``None`` where the user left the figure free.
        predicted: What the search was told.
        measured: What the artifact needed on the device; ``None`` where it could not be measured there.
    """

    name: str
    budget: float | None
    predicted: Estimate
    measured: float | None

    @property
    def passed(self) -> bool | None:
        """Whether the measured value is within the limit; ``None`` where one of the two is missing."""
        return None if self.budget is None or self.measured is None else self.measured <= self.budget


@dataclass(frozen=True)
class GoalRow:
    """The student's score against the teacher's.

    Attributes:
        metric: Name of the metric, e.g. ``accuracy``.
        teacher: Score of the teacher (0 to 1).
        student: Score of the student on the same examples (0 to 1).
        standard_error: Standard error of the student's score (0 to 1).
        examples: On how many examples both were scored.
        max_drop_points: How many points the student may lose.
    """

    metric: str
    teacher: float
    student: float
    standard_error: float
    examples: int
    max_drop_points: float

    @property
    def drop_points(self) -> float:
        """Points that the student lost; negative where it is better than the teacher."""
        return 100 * (self.teacher - self.student)

    @property
    def passed(self) -> bool:
        """Whether the loss is within what is allowed (a billionth of a point is rounding, not a loss)."""
        return self.drop_points <= self.max_drop_points + 1e-9


@dataclass(frozen=True)
class CandidateRow:
    """One candidate of the search.

    Attributes:
        number: Its trial number.
        stage: How far it got; an ``infeasible`` one was predicted over budget and never scored, a ``stopped`` one was
            scored after less training than others, and was not among the best.
        label: Why it was tried, e.g. ``int8 teacher`` for an enqueued one; empty where the sampler drew it.
        plan_summary: What it does to the teacher, in one line.
        score: Its score (0 to 1); ``None`` where it was never scored.
        standard_error: Of the score; 0 where it is not known.
        latency_p50_ms: Predicted.
        measured_p50_ms: Measured on the device, where it was.
        peak_memory_bytes: Predicted.
        size_bytes: Predicted.
        violated: Limits that it breaks, by the names of ``cost.LIMITS``.
    """

    number: int
    stage: Stage
    label: str
    plan_summary: str
    score: float | None
    latency_p50_ms: Estimate
    measured_p50_ms: float | None
    peak_memory_bytes: float
    size_bytes: float
    violated: tuple[str, ...] = ()
    standard_error: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether it breaks no limit."""
        return not self.violated


@dataclass(frozen=True)
class BaselineRow:
    """One model, measured on the same device and engine as the student.

    Attributes:
        name: What it is, e.g. ``teacher, int8``.
        role: The teacher, something simpler that one could have done instead, or the exported student.
        score: On the same examples as the student (0 to 1); ``None`` where it was only timed.
        latency_p50_ms: Median.
        latency_p95_ms: 95th percentile.
        peak_memory_bytes: Peak resident memory of the process that ran it.
        size_bytes: Of the artifact on disk.
        samples: How many inferences the two percentiles come from.
        agreement: Share of these examples that it answers as the teacher does (0 to 1).
    """

    name: str
    role: Literal["teacher", "baseline", "student"]
    score: float | None
    latency_p50_ms: float
    latency_p95_ms: float
    peak_memory_bytes: int
    size_bytes: int
    samples: int
    agreement: float | None = None


@dataclass(frozen=True)
class Pair:
    """A latency that was predicted and then measured, in milliseconds."""

    label: str
    predicted: Estimate
    measured: float

    @property
    def covered(self) -> bool:
        """Whether the interval holds the measured value."""
        return self.predicted.low <= self.measured <= self.predicted.high


@dataclass(frozen=True)
class Moment:
    """How the device was when a sample of its profile was taken.

    Attributes:
        start_s: When, in seconds on any clock that all moments share.
        reference_ms: What the reference kernel took; ``None`` where it was not timed.
        waited_share: Share of the sample's time in which it waited for a processor (0 to 1).
        slow: Whether the moment lies in an episode in which the device was slow.
    """

    start_s: float
    reference_ms: float | None
    waited_share: float
    slow: bool


@dataclass(frozen=True)
class PredictorHealth:
    """How far the latency predictor can be trusted.

    Attributes:
        source: Which predictor spoke, e.g. its file.
        calibrated: Whether it was fitted on measurements of this device and engine; an emulated one is no device.
        samples: On how many.
        held_out_mape: Mean absolute relative error on held-out samples (0.03 is 3 %).
        within_10_percent: Share of held-out samples predicted within 10 % (0 to 1).
        coverage: Share of held-out samples inside their interval (0 to 1).
        pairs: Predictions that this run checked by measuring.
        held_out: What was said of each calibration sample that was left out of the fit, and measured.
        timeline: How the device was while it was profiled, in time order; empty where that was not kept.
        episodes: Stretches in which it was slow, in words.
        failed: What could not be measured, in words; empty where all was.
        emulator: What emulated the device; empty where it is real.
    """

    source: str
    calibrated: bool
    samples: int
    held_out_mape: float | None = None
    within_10_percent: float | None = None
    coverage: float | None = None
    pairs: tuple[Pair, ...] = ()
    held_out: tuple[Pair, ...] = ()
    timeline: tuple[Moment, ...] = ()
    episodes: tuple[str, ...] = ()
    failed: str = ""
    emulator: str = ""


@dataclass(frozen=True)
class FailureRow:
    """Candidates that could not be measured or scored, by reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class ParityRow:
    """One exported artifact against the torch student, on real inputs.

    Attributes:
        engine: Engine that ran the artifact.
        max_abs_logit_diff: Largest difference of any logit.
        tolerance: Largest that is allowed.
        argmax_agreement: Share of inputs with the same answer (0 to 1).
        torch_score: Score of the torch student (0 to 1).
        artifact_score: Score of the artifact on the same examples (0 to 1).
        passed: Whether the parity gate let it through.
        beyond: Inputs that differ more than allowed, which a few may where tokens are selected.
    """

    engine: str
    max_abs_logit_diff: float
    tolerance: float
    argmax_agreement: float
    torch_score: float
    artifact_score: float
    passed: bool
    beyond: int = 0


@dataclass(frozen=True)
class RunReport:
    """A run, as told to its user.

    Attributes:
        title: What was compressed for what, in one line.
        created: When, as ISO 8601 text.
        device: Name of the device profile.
        engine: Engine that ran everything measured here.
        threads: Threads that the engine was given.
        verdict: ``pass``: every limit and the goal are met, as measured. ``fail``: something was exported and breaks
            one. ``infeasible``: no candidate fits. ``estimated``: it should fit, but the device was not there to
            measure on, or is emulated.
        blocked: Which limit or goal blocks, in words; empty on a pass.
        reachable: What can be reached instead, in words; empty on a pass.
        limits: One row a figure of ``cost.LIMITS``.
        goal: ``None`` where nothing was scored.
        candidates: Every candidate, in the order tried.
        baselines: Measured models: the teacher, what else one could have done, the student.
        predictor: The latency predictor.
        failures: Empty where nothing failed.
        parity: One row an exported artifact.
        reproduction: Command lines that repeat this run.
        versions: Package or machine part -> version.
        emulated: Program that emulated the device on which everything was measured; empty where it is real.
    """

    title: str
    created: str
    device: str
    engine: str
    threads: int
    verdict: Verdict
    blocked: str
    reachable: str
    limits: tuple[LimitRow, ...]
    goal: GoalRow | None
    candidates: tuple[CandidateRow, ...]
    baselines: tuple[BaselineRow, ...]
    predictor: PredictorHealth
    failures: tuple[FailureRow, ...]
    parity: tuple[ParityRow, ...]
    reproduction: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    emulated: str = ""

    def only(self, role: Literal["teacher", "student"]) -> BaselineRow | None:
        """Return the measured teacher or student, if there is one."""
        return next((row for row in self.baselines if row.role == role), None)

    def judged(self, row: BaselineRow) -> float | None:
        """Return what the goal asks of a model (0 to 1): its score, or how far it answers as the teacher."""
        return row.agreement if self.goal is not None and self.goal.metric == AGREEMENT else row.score

    def limit(self, name: str) -> float | None:
        """Return the absolute limit of the figure ``name``, if it has one."""
        return next((row.budget for row in self.limits if row.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return {**asdict(self), "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> RunReport:
        """Read what ``to_dict`` wrote, also after a trip through JSON.

        Raises:
            StorageError: A field is missing or unknown.
        """
        return _read(cls, data)


def _read(kind: type[R], data: Any) -> R:
    # Reports of earlier versions lack what has a default.
    known = fields(kind)  # type: ignore[arg-type]
    names = {f.name for f in known}
    needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if not isinstance(data, Mapping) or not needed <= set(data) <= names:
        raise StorageError(
            f"A report holds {sorted(data) if isinstance(data, Mapping) else data!r} where {kind.__name__} is due.",
            right=f"{kind.__name__} has the fields {', '.join(sorted(names))}.",
            next_step="Write the report again with this version: autocompress report RUN_DIRECTORY.",
        )
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in data.items()})


def _value(hint: Any, value: Any) -> Any:
    """Rebuild ``value`` as ``hint``: a dataclass, a tuple of one type, a union with ``None``, or a plain JSON value."""
    if isinstance(hint, UnionType):
        return None if value is None else _value(get_args(hint)[0], value)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], item) for item in value)
    return _read(hint, value) if is_dataclass(hint) and isinstance(hint, type) else value
