"""Measure models of many shapes on a device, in one or several engines, and fit what predicts their costs."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Failure, Measurement
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import DeviceError, StorageError
from autocompress.pipeline.journal import Journal
from autocompress.pipeline.known import HOST, MODELS, best_known, identity, made_by
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.tuning import TVM, Tune, read_tune, tune_device, tune_host
from autocompress.predictors.fit import fit
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.predictor import FittedPredictor, Moment, Sample
from autocompress.predictors.sampling import COMMON_BITS, FFN_ALIGN, corners, is_block, sample_shapes
from autocompress.predictors.store import file_name, save
from autocompress.profiling.drift import observe, remeasure_drifted, slow_episodes, without_waiting
from autocompress.profiling.energy import with_power
from autocompress.profiling.episodes import describe, marks
from autocompress.profiling.runner import LocalRunner, Runner
from autocompress.profiling.sustained import Sustained
from autocompress.profiling.sustained import describe as describe_lasting
from autocompress.profiling.timing import Timing
from autocompress.shape import Bits, ModelShape

if TYPE_CHECKING:
    from autocompress.compiler.tuning import Timer

SAMPLES = "samples"
"""Folder of the journals."""
SAMPLE_CAP_S = 0.5
"""Seconds of timing a sample."""
USUAL_SAMPLES = 24
MOST_SAMPLES = 400
"""However many minutes there are: more hardly helps."""
KEPT_BACK = 0.2
"""Share of the minutes that is kept for measuring again what was disturbed."""
REMEASURED = 0.25
"""Most samples that are measured again where no minutes are given, as a share of all."""


@dataclass(frozen=True)
class Bench:
    """Where samples are taken.

    Attributes:
        runner: Runs them.
        target: What they are compiled for; ``None`` is this machine.
        timer: Times kernels there, so that the compiler can be tuned; ``None`` leaves it untuned.
    """

    runner: Runner
    target: Mapping[str, object] | None = None
    timer: Timer | None = None


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


def profile_device(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engines: Sequence[str],
    threads: int = 1,
    tokens: int = 64,
    samples: int | None = None,
    minutes: float | None = None,
    sustained_minutes: float = 0.0,
    align: int = FFN_ALIGN,
    bits: tuple[Bits, ...] = COMMON_BITS,
    tune: str | None = None,
    bench: Bench | None = None,
    resume: bool = False,
    progress: Progress = quiet,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, FittedPredictor]:
    """Measure models of many shapes around ``teacher``, fit each engine's predictor, and keep it as JSON.

    They are measured on this machine or, given a ``bench``, on the device of ``profile`` as that says; engines take
    turns on each shape, so that a slow hour is slow for all. Each sample is written down in a ``Journal`` as it
    arrives; with ``resume``, those of an interrupted run are not taken anew.

    Samples that an earlier profiling took on the same processor with the same engine and kernels are used too. All
    corners of the space are measured, however few samples or minutes are asked for. The compiler is tuned first
    (``tune``: see ``pipeline.tuning``), so that what is measured is what will be deployed.

    Args:
        profile: The device.
        teacher: The largest shape.
        engines: Keys of ``engines.ENGINES``.
        threads: Threads of the engine.
        tokens: Length of the sequences.
        samples: Shapes to measure; ``None``: as many as the minutes allow, or ``USUAL_SAMPLES``.
        minutes: Time after which no further shape is measured, if any; each start counts anew.
        sustained_minutes: Time for which ``teacher`` runs without a pause at the end, to see what lasting load makes of
            it; 0 for not at all.
        align: Feed-forward neurons come in multiples of this.
        bits: Widths to draw from.
        tune: How to tune the compiler first.
        bench: Where samples are taken.
        resume: Keep those of a run that was interrupted.
        progress: Told of every sample.
        clock: Seconds, monotonic.

    Returns:
        The predictor of each engine.

    Raises:
        DeviceError: Too few samples could be measured, or the device cannot be reached, or it is emulated.
        ConfigError: There is no such way to tune, or what is to be resumed is another run.
    """
    hows = {engine: _read_tune(tune, engine, engines, profile) for engine in engines}
    usual = USUAL_SAMPLES if minutes is None else MOST_SAMPLES
    cornered = corners(teacher, align, bits)
    needed = max(len(cornered), FEWEST_SAMPLES)
    shapes = sample_shapes(teacher, max(samples or usual, needed), 0, align, bits)
    chosen = frozenset(cornered).union(shape for shape in shapes if is_block(shape, teacher))
    deadline = Deadline.of(minutes, clock)
    if bench is None:
        bench = Bench(LocalRunner(profile.name))
        if (how := hows.get(TVM, "off")) != "off":
            tune_host(shapes, tokens=tokens, how=how, progress=progress)
    elif bench.timer is not None and hows.get(TVM, "off") != "off":
        from autocompress.compiler.target import Target

        tune_device(shapes, tokens=tokens, target=Target.of(bench.target), timer=bench.timer, progress=progress)
    timing = Timing(threads, teacher.vocabulary, cap_s=SAMPLE_CAP_S)
    campaigns = [Campaign(profile, engine, tokens, timing, bench, chosen) for engine in engines]
    for campaign in campaigns:
        campaign.begin(resume=resume)
    for index, shape in enumerate(shapes):
        if index >= needed and deadline.sampling_is_over:
            break
        for turn, campaign in enumerate(campaigns):
            done = index * len(engines) + turn
            progress("calibrate", done, len(engines) * len(shapes), shape.describe())
            campaign.take(shape)
    sustained_s = 60 * sustained_minutes
    return {
        campaign.engine: campaign.finish(campaign.settle(deadline, progress), teacher, sustained_s, progress)
        for campaign in campaigns
    }


def _read_tune(tune: str | None, engine: str, engines: Sequence[str], profile: DeviceProfile) -> Tune:
    """Return how to tune for one of ``engines``; what is asked for concerns TVM, where it is among them."""
    asked = tune if engine == TVM or TVM not in engines else None
    return read_tune(asked, engine, board="" if profile.name == HOST else profile.name)


@dataclass
class Campaign:
    """The samples of one engine on one device; ``chosen`` are the shapes that were not drawn at random."""

    profile: DeviceProfile
    engine: str
    tokens: int
    timing: Timing
    bench: Bench
    chosen: frozenset[ModelShape]
    results: dict[str, Measurement | Failure] = field(default_factory=dict)
    shapes: dict[str, ModelShape] = field(default_factory=dict)
    spent_s: float = 0.0
    episodes: tuple[str, ...] = ()
    failed: str = ""

    def begin(self, *, resume: bool) -> None:
        """Open the journal; with ``resume``, read what an interrupted run has measured."""
        self.identity = identity(self.profile, self.engine)
        self.before = self._journal.begin(resume=resume)

    def take(self, shape: ModelShape) -> None:
        """Measure a shape, unless the interrupted run has."""
        name = str(len(self.shapes))
        self.shapes[name] = shape
        self.results[name] = self.before.get(shape) or self._measure(name)

    def settle(self, deadline: Deadline, progress: Progress) -> dict[str, Measurement]:
        """Measure again what was disturbed, tell what failed, and return what was measured."""
        done = len(self.results)
        self.episodes = tuple(map(describe, slow_episodes(self.results)))
        for episode in self.episodes:
            progress("calibrate", done, done, f"{self.engine}: {episode}")
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
            Sample.of(shape, self.tokens, without_waiting(result), drawn=shape not in self.chosen)
            for name, result in measured.items()
            if (shape := self.shapes[name])
        )
        predictor = fit(
            taken + self._earlier({(sample.shape, sample.tokens) for sample in taken}),
            device=self.profile.name,
            engine=self.engine,
            threads=self.timing.threads,
            provenance={
                **self.identity,
                "date": datetime.now(UTC).date().isoformat(),
                "episodes": "; ".join(self.episodes) or "none",
                "failures": self.failed or "none",
                **({"emulated": self.profile.emulated} if self.profile.emulated else {}),
                **(self._lasting(teacher, sustained_s, progress) if sustained_s else {}),
            },
            timeline=_timeline(self.results),
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
        with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
            stem, weights = Path(folder, "model"), random_weights(shape)
            artifact = build(shape, weights, stem, engine=self.engine, tokens=self.tokens, target=self.bench.target)
            date = datetime.now(UTC).isoformat("T", "seconds")
            result = self.bench.runner.run(artifact, timing, provenance={"date": date})
        if isinstance(result, Failure):
            return result
        refuse_mixing(self.profile, result)
        return with_power(result, self.profile.power_w)

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


def refuse_mixing(profile: DeviceProfile, measurement: Measurement) -> None:
    """Keep times of an emulator from passing for those of a device.

    Raises:
        DeviceError: The measurement was emulated and the profile is of a real device, or the reverse.
    """
    ran = measurement.provenance.get("emulated", "")
    if bool(ran) == bool(profile.emulated):
        return
    here = f"was emulated by {ran}" if ran else "ran on a real processor"
    right = "a real device" if ran else f"one that {profile.emulated} emulates"
    raise DeviceError(
        f"A sample {here}, and the profile {profile.name} is of {right}.",
        right="The times of an emulator are no device's: they are kept under a profile that says emulated.",
        next_step="Add the board under another name, and let autocompress device probe write its profile.",
    )


def _timeline(results: Mapping[str, Measurement | Failure]) -> tuple[Moment, ...]:
    run = observe(results)
    slow = marks(slow_episodes(results), len(run))
    return tuple(
        Moment(each.start_s, each.reference_ms, each.conditions.waited_share or 0.0, mark)
        for each, mark in zip(run, slow, strict=True)
    )
