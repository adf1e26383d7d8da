"""What predicts costs on a device: a fit to measurements where it can be measured, its data sheet where not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Failure, Measurement
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import OutOfRangeError, StorageError, UnsupportedError
from autocompress.pipeline.journal import Journal
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.tuning import TVM, host_log, read_tune, tune_host
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Predictor, Sample
from autocompress.predictors.roofline import Peak, Roofline
from autocompress.predictors.sampling import COMMON_BITS, FFN_ALIGN, corners, sample_shapes
from autocompress.predictors.store import file_name, find, load, save
from autocompress.profiling.drift import remeasure_drifted, slow_episodes, without_waiting
from autocompress.profiling.episodes import describe
from autocompress.profiling.runner import LocalRunner, Runner
from autocompress.profiling.timing import Timing
from autocompress.shape import BITS, Bits, ModelShape

MODELS = "latency_models"
SAMPLES = "samples"
"""Folder of the journals."""
HOST = "host"
UNKNOWN_BANDWIDTH_GB_S = 8.0
"""Assumed where a profile states none: what a single-channel board reaches."""
SAMPLE_CAP_S = 0.5
"""Seconds of timing a sample."""


def predictor_for(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engine: str,
    threads: int,
    tokens: int,
    samples: int,
    align: int,
    bits: tuple[Bits, ...] = COMMON_BITS,
    progress: Progress = quiet,
) -> Predictor:
    """Return the predictor of a device for shapes nested within ``teacher``.

    A fitted one is used if it was made on this processor, with this engine version and tuning, and covers the teacher.
    Otherwise this machine is profiled (device ``host``); a board that cannot be reached gets its roofline.
    """
    known = best_known(profile, engine, threads)
    if known is not None and covers(known, teacher, tokens, align, bits):
        progress("calibrate", 1, 1, known.source)
        return known
    if profile.name != HOST:
        return known or roofline(profile, engine, threads)
    return profile_host(
        profile,
        teacher,
        engine=engine,
        threads=threads,
        tokens=tokens,
        samples=samples,
        align=align,
        bits=bits,
        progress=progress,
    )


def best_known(profile: DeviceProfile, engine: str, threads: int) -> FittedPredictor | None:
    """Return the fitted predictor of a device; of this machine only one made on its processor and engine version."""
    path = find(data_folders(MODELS), profile.name, engine, threads)
    known = None if path is None else load(path)
    return known if known is not None and _is_current(known, profile, engine) else None


def roofline(profile: DeviceProfile, engine: str, threads: int) -> Roofline:
    """Return the analytic estimate of a device."""
    peak = Peak(
        cores=profile.core_count,
        ghz=profile.frequency_ghz,
        f32_flops_per_cycle=profile.f32_flops_per_cycle,
        int8_ops_per_cycle=profile.int8_ops_per_cycle,
        bandwidth_gb_s=profile.memory_bandwidth_gb_s or UNKNOWN_BANDWIDTH_GB_S,
    )
    return Roofline(profile.name, engine, threads, peak)


@dataclass(frozen=True)
class Bench:
    """Where samples are taken.

    Attributes:
        runner: Runs them.
        target: What they are compiled for; ``None`` is this machine.
    """

    runner: Runner
    target: Mapping[str, object] | None = None


def profile_host(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engine: str,
    threads: int,
    tokens: int,
    samples: int,
    align: int = FFN_ALIGN,
    bits: tuple[Bits, ...] = COMMON_BITS,
    tune: str | None = None,
    bench: Bench | None = None,
    resume: bool = False,
    progress: Progress = quiet,
) -> FittedPredictor:
    """Measure models of many shapes around ``teacher``, fit, and keep the predictor as JSON.

    They are measured on this machine or, given a ``bench``, on the device of ``profile`` as that says. Each sample is
    written down in a ``Journal`` as it arrives; with ``resume``, those of an interrupted run are not taken anew.

    Samples that an earlier profiling took on the same processor with the same engine and kernels are used too. Where
    ``bits`` ask for more corners than ``samples``, all corners are measured. The compiler is tuned first (``tune``: see
    ``pipeline.tuning``), so that what is measured is what will be deployed; for other devices it is not.

    Raises:
        DeviceError: Too few samples could be measured, or the device cannot be reached.
        ConfigError: There is no such way to tune, or what is to be resumed is another run.
    """
    how = read_tune(tune, engine)
    samples = max(samples, len(corners(teacher, align, bits)))
    shapes = {str(index): shape for index, shape in enumerate(sample_shapes(teacher, samples, 0, align, bits))}
    if how != "off" and bench is None:
        tune_host(shapes.values(), tokens=tokens, how=how, progress=progress)
    bench = bench or Bench(LocalRunner(profile.name))
    identity = _identity(profile, engine)
    journal = _journal(profile, engine, threads, tokens, identity)
    taken_before = journal.begin(resume=resume)
    timing = Timing(threads, teacher.vocabulary, cap_s=SAMPLE_CAP_S)

    def measure(name: str) -> Measurement | Failure:
        with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
            weights = random_weights(shapes[name])
            stem = Path(folder, "model")
            artifact = build(shapes[name], weights, stem, engine=engine, tokens=tokens, target=bench.target)
            result = bench.runner.run(
                artifact, timing, provenance={"date": datetime.now(UTC).isoformat("T", "seconds")}
            )
        journal.note(shapes[name], result)
        return result

    results: dict[str, Measurement | Failure] = {}
    for index, (name, shape) in enumerate(shapes.items()):
        progress("calibrate", index, samples, shape.describe())
        results[name] = taken_before.get(shape) or measure(name)
    episodes = [describe(episode) for episode in slow_episodes(results)]
    for episode in episodes:
        progress("calibrate", samples, samples, episode)
    steady = remeasure_drifted(results, measure, at_most=samples // 4)
    taken = tuple(
        Sample.of(shapes[name], tokens, without_waiting(result))
        for name, result in steady.items()
        if isinstance(result, Measurement)
    )
    predictor = fit(
        taken + _earlier(profile, engine, threads, {(sample.shape, sample.tokens) for sample in taken}),
        device=profile.name,
        engine=engine,
        threads=threads,
        provenance={
            **identity,
            "date": datetime.now(UTC).date().isoformat(),
            "episodes": "; ".join(episodes) or "none",
        },
    )
    path = save(predictor, data_folders(MODELS)[0])
    error = predictor.held_out["latency_p50_ms"].mape
    progress("calibrate", samples, samples, f"held-out error {error:.1%}, kept in {path}")
    return predictor


def _journal(profile: DeviceProfile, engine: str, threads: int, tokens: int, identity: Mapping[str, str]) -> Journal:
    path = (data_folders(SAMPLES)[0] / file_name(profile.name, engine, threads)).with_suffix(".jsonl")
    sizes = {"threads": str(threads), "tokens": str(tokens), "cap_s": str(SAMPLE_CAP_S)}
    return Journal(path, {"device": profile.name, "engine": engine, **identity, **sizes})


def _earlier(
    profile: DeviceProfile, engine: str, threads: int, retaken: set[tuple[ModelShape, int]]
) -> tuple[Sample, ...]:
    try:
        known = best_known(profile, engine, threads)
    except StorageError:
        known = None  # A file that cannot be read, or is of an older version, is what profiling replaces.
    same = known is not None and _made_by(known, _identity(profile, engine))
    samples = known.samples if known is not None and same else ()
    return tuple(sample for sample in samples if (sample.shape, sample.tokens) not in retaken)


def _identity(profile: DeviceProfile, engine: str) -> dict[str, str]:
    found = {"cpu": profile.cpu, "engine_version": profile.engines.get(engine, "unknown")}
    return found | {"tuning": host_log().digest} if engine == TVM and profile.name == HOST else found


def _is_current(known: FittedPredictor, profile: DeviceProfile, engine: str) -> bool:
    if profile.name != HOST:
        return True  # What a board's predictor was fitted on is in its provenance; this machine says nothing of it.
    return _made_by(known, _identity(profile, engine))


def _made_by(known: FittedPredictor, identity: Mapping[str, str]) -> bool:
    return all(known.provenance.get(key) == value for key, value in identity.items())


def widths(asked: Iterable[int]) -> tuple[Bits, ...]:
    """Return the widths that a predictor must know, ascending: the common ones, and those that are asked for.

    Raises:
        UnsupportedError: There is no such width.
    """
    unknown = sorted(set(asked).difference(BITS))
    if unknown:
        raise UnsupportedError(
            f"Weights of {', '.join(map(str, unknown))} bits are asked for.",
            right=f"Bits are one of {', '.join(map(str, BITS))}.",
            next_step="Correct --bits.",
        )
    return tuple(bits for bits in BITS if bits in {*COMMON_BITS, *asked})


def covers(
    known: FittedPredictor, teacher: ModelShape, tokens: int, align: int, bits: tuple[Bits, ...] = COMMON_BITS
) -> bool:
    """Return whether a predictor was fitted on shapes like those nested within ``teacher``, at each of ``bits``."""
    try:
        for shape in corners(teacher, align, bits):
            known.predict(shape, tokens)
    except OutOfRangeError:
        return False
    return True
