"""The samples of one engine on one device: taken, written down, taken again where disturbed, and fitted."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Failure, Measurement
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import StorageError
from autocompress.pipeline.bench import Bench, refuse_mixing
from autocompress.pipeline.journal import Journal
from autocompress.pipeline.known import MODELS, best_known, identity, made_by, relatives
from autocompress.pipeline.progress import Progress
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Moment, Sample
from autocompress.predictors.store import file_name, save
from autocompress.profiling.drift import observe, remeasure_drifted, slow_episodes, without_waiting
from autocompress.profiling.energy import with_power
from autocompress.profiling.episodes import Episode, describe, marks
from autocompress.profiling.sustained import Sustained
from autocompress.profiling.sustained import describe as describe_lasting
from autocompress.profiling.timing import Timing
from autocompress.shape import ModelShape

SAMPLES = "samples"
"""Folder of the journals."""
KEPT_BACK = 0.2
"""Share of the minutes that is kept for measuring again what was disturbed."""
REMEASURED = 0.25
"""Most samples that are measured again where no minutes are given, as a share of all."""


@dataclass(frozen=True)
class Deadline:
    """The time that a profiling may take.

    Attributes:
        end_s: On ``clock``; infinite where no minutes are given.
        span_s: Seconds in all.
        clock: Seconds, monotonic.
    """

    end_s: float
    span_s: float
    clock: Callable[[], float]

    @classmethod
    def of(cls, minutes: float | None, clock: Callable[[], float]) -> Deadline:
        """Let ``minutes`` begin now."""
        span_s = float("inf") if minutes is None else 60 * minutes
        return cls(clock() + span_s, span_s, clock)

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self.end_s - self.clock()

    @property
    def sampling_is_over(self) -> bool:
        """Whether only the time is left that is kept for measuring again."""
        return self.span_s != float("inf") and self.left_s <= KEPT_BACK * self.span_s

    def foreseen(self, done: int, most: int) -> int:
        """Return how many samples there will be at the rate of the ``done`` so far, at most ``most``."""
        spent_s = self.span_s - self.left_s
        if self.span_s == float("inf") or done == 0 or spent_s <= 0:
            return most
        return min(most, max(done + 1, round(done * (1 - KEPT_BACK) * self.span_s / spent_s)))


@dataclass
class Campaign:
    """The samples of one engine on one device."""

    profile: DeviceProfile
    engine: str
    tokens: int
    timing: Timing
    bench: Bench
    results: dict[str, Measurement | Failure] = field(default_factory=dict)
    shapes: dict[str, ModelShape] = field(default_factory=dict)
    drawn: set[ModelShape] = field(default_factory=set)
    spent_s: float = 0.0
    episodes: tuple[Episode, ...] = ()
    failed: str = ""

    def begin(self, *, resume: bool) -> None:
        """Open the journal; with ``resume``, read what an interrupted run has measured."""
        self.identity = identity(self.profile, self.engine)
        self.before = self._journal.begin(resume=resume)

    def take(self, shape: ModelShape, *, drawn: bool) -> None:
        """Measure a shape, unless the interrupted run has; ``drawn`` says whether it was drawn at random."""
        name = str(len(self.shapes))
        self.shapes[name] = shape
        if drawn:
            self.drawn.add(shape)
        self.results[name] = self.before.get(shape) or self._measure(name)

    def so_far(self) -> tuple[list[ModelShape], npt.NDArray[np.float64]]:
        """Return what was measured, and the latency of each in milliseconds (shapes,)."""
        found = {name: result for name, result in self.results.items() if isinstance(result, Measurement)}
        return [self.shapes[name] for name in found], np.array([result.latency_p50_ms for result in found.values()])

    def settle(self, deadline: Deadline, progress: Progress) -> dict[str, Measurement]:
        """Measure again what was disturbed, tell what failed, and return what was measured."""
        done = len(self.results)
        self.episodes = slow_episodes(self.results)
        for episode in self.episodes:
            progress("calibrate", done, done, f"{self.engine}: {describe(episode)}")
        steady = remeasure_drifted(self.results, self._measure, at_most=self._spare(deadline))
        failures = Counter(result.reason.partition(":")[0] for result in steady.values() if isinstance(result, Failure))
        self.failed = ", ".join(f"{reason} {count}" for reason, count in failures.most_common())
        if self.failed:
            progress("calibrate", done, done, f"{self.engine}: not measured: {self.failed}")
        return {name: result for name, result in steady.items() if isinstance(result, Measurement)}

    def finish(
        self, measured: Mapping[str, Measurement], teacher: ModelShape, sustained_s: float, progress: Progress
    ) -> FittedPredictor:
        """Fit, and keep the predictor; ``teacher`` is kept under load for ``sustained_s`` seconds if these are any."""
        taken = tuple(
            Sample.of(self.shapes[name], self.tokens, without_waiting(result), drawn=self.shapes[name] in self.drawn)
            for name, result in measured.items()
        )
        predictor = fit(
            taken + self._earlier({(sample.shape, sample.tokens) for sample in taken}),
            device=self.profile.name,
            engine=self.engine,
            threads=self.timing.threads,
            provenance={
                **self.identity,
                "date": datetime.now(UTC).date().isoformat(),
                "episodes": "; ".join(map(describe, self.episodes)) or "none",
                "failures": self.failed or "none",
                **_power(measured.values()),
                **({"emulated": self.profile.emulated} if self.profile.emulated else {}),
                **(self._lasting(teacher, sustained_s, progress) if sustained_s else {}),
            },
            timeline=_timeline(self.results, self.episodes),
            known=relatives(self.profile.name, self.engine, self.timing.threads, self.identity),
        )
        path = save(predictor, data_folders(MODELS)[0])
        error = predictor.held_out["latency_p50_ms"].mape
        done = len(self.results)
        progress("calibrate", done, done, f"{self.engine}: held-out error {error:.1%}, kept in {path}")
        return predictor

    def _lasting(self, teacher: ModelShape, seconds: float, progress: Progress) -> dict[str, str]:
        """Return what minutes under load make of the teacher, as it is kept with the predictor."""
        done = len(self.results)
        progress("calibrate", done, done, f"{self.engine}: {seconds / 60:g} minutes under load")
        result = self._run(teacher, replace(self.timing, sustained_s=seconds))
        lasting = Sustained.of(result) if isinstance(result, Measurement) else None
        if lasting is None:
            reason = result.reason if isinstance(result, Failure) else "the board's agent is older than this machine's"
            progress("calibrate", done, done, f"{self.engine}: under load: {reason}")
            return {}
        progress("calibrate", done, done, f"{self.engine}: {describe_lasting(lasting)}")
        return {"sustained": lasting.to_json()}

    @property
    def _journal(self) -> Journal:
        name = file_name(self.profile.name, self.engine, self.timing.threads)
        path = (data_folders(SAMPLES)[0] / name).with_suffix(".jsonl")
        sizes = {"threads": str(self.timing.threads), "tokens": str(self.tokens), "cap_s": str(self.timing.cap_s)}
        return Journal(path, {"device": self.profile.name, "engine": self.engine, **self.identity, **sizes})

    def _measure(self, name: str) -> Measurement | Failure:
        start_s = time.monotonic()
        result = self._run(self.shapes[name], self.timing)
        self._journal.note(self.shapes[name], result)
        self.spent_s += time.monotonic() - start_s
        return result

    def _run(self, shape: ModelShape, timing: Timing) -> Measurement | Failure:
        return measure_shape(shape, self.profile, self.engine, tokens=self.tokens, timing=timing, bench=self.bench)

    def _spare(self, deadline: Deadline) -> int:
        """Return how many samples may be measured again."""
        if deadline.span_s == float("inf"):
            return int(REMEASURED * len(self.results))
        return int(max(0.0, deadline.left_s) * len(self.results) / max(self.spent_s, 1e-9))

    def _earlier(self, retaken: set[tuple[ModelShape, int]]) -> tuple[Sample, ...]:
        try:
            known = best_known(self.profile, self.engine, self.timing.threads)
        except StorageError:
            known = None  # A file that cannot be read, or is of an older version, is what profiling replaces.
        samples = known.samples if known is not None and made_by(known, self.identity) else ()
        return tuple(sample for sample in samples if (sample.shape, sample.tokens) not in retaken)


def measure_shape(
    shape: ModelShape, profile: DeviceProfile, engine: str, *, tokens: int, timing: Timing, bench: Bench
) -> Measurement | Failure:
    """Build a model of ``shape`` with random weights, run it on a device, and return what was measured.

    Raises:
        DeviceError: The device cannot be reached, or is emulated and its profile does not say so, or the reverse.
    """
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        stem, weights = Path(folder, "model"), random_weights(shape)
        artifact = build(shape, weights, stem, engine=engine, tokens=tokens, target=bench.target)
        date = datetime.now(UTC).isoformat("T", "seconds")
        known_ids = replace(timing, vocabulary=shape.vocabulary)  # A block's is smaller than the teacher's.
        result = bench.runner.run(artifact, known_ids, provenance={"date": date})
    if isinstance(result, Failure):
        return result
    refuse_mixing(profile, result)
    return with_power(result, profile.power_w)


def _power(measured: Iterable[Measurement]) -> dict[str, str]:
    """Return the median power in watts (millijoules a millisecond) of what was metered or stated, with its source."""
    known = [result for result in measured if result.energy_mj is not None]
    if not known:
        return {}
    power_w = median(float(result.energy_mj or 0.0) / result.latency_p50_ms for result in known)
    return {"power_w": f"{power_w:.4g}", "energy_source": known[0].provenance.get("energy_source", "unknown")}


def _timeline(results: Mapping[str, Measurement | Failure], episodes: Sequence[Episode]) -> tuple[Moment, ...]:
    run = observe(results)
    slow = marks(episodes, len(run))
    return tuple(
        Moment(each.start_s, each.reference_ms, each.conditions.waited_share or 0.0, mark)
        for each, mark in zip(run, slow, strict=True)
    )
