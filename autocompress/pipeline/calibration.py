"""What predicts costs on a device: a fit to measurements where it can be measured, its data sheet where not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Failure
from autocompress.devices.paths import data_folders
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import OutOfRangeError
from autocompress.pipeline.progress import Progress, quiet
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Predictor, Sample
from autocompress.predictors.roofline import Peak, Roofline
from autocompress.predictors.sampling import corners, sample_shapes
from autocompress.predictors.store import find, load, save
from autocompress.profiling.runner import LocalRunner
from autocompress.shape import ModelShape

MODELS = "latency_models"
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
    progress: Progress = quiet,
) -> Predictor:
    """Return the predictor of a device for shapes nested within ``teacher``.

    A fitted one is used if it was made on this processor with this engine version and covers the teacher. Otherwise
    this machine is profiled (device ``host``); a board that cannot be reached gets its roofline.
    """
    path = find(data_folders(MODELS), profile.name, engine, threads)
    known = None if path is None else load(path)
    if known is not None and _is_current(known, profile, engine) and _covers(known, teacher, tokens):
        progress("calibrate", 1, 1, known.source)
        return known
    if profile.name != HOST:
        return known or roofline(profile, engine, threads)
    return profile_host(
        profile, teacher, engine=engine, threads=threads, tokens=tokens, samples=samples, progress=progress
    )


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


def profile_host(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engine: str,
    threads: int,
    tokens: int,
    samples: int,
    progress: Progress = quiet,
) -> FittedPredictor:
    """Measure models of many shapes around ``teacher`` on this machine, fit, and keep the predictor as JSON.

    Samples that an earlier profiling took on the same processor with the same engine are used too.

    Raises:
        DeviceError: Too few samples could be measured.
    """
    taken = tuple(
        _measure(profile, teacher, engine=engine, threads=threads, tokens=tokens, samples=samples, progress=progress)
    )
    predictor = fit(
        taken + _earlier(profile, engine, threads, {(sample.shape, sample.tokens) for sample in taken}),
        device=profile.name,
        engine=engine,
        threads=threads,
        provenance={**_identity(profile, engine), "date": datetime.now(UTC).date().isoformat()},
    )
    path = save(predictor, data_folders(MODELS)[0])
    error = predictor.held_out["latency_p50_ms"].mape
    progress("calibrate", samples, samples, f"held-out error {error:.1%}, kept in {path}")
    return predictor


def _measure(
    profile: DeviceProfile,
    teacher: ModelShape,
    *,
    engine: str,
    threads: int,
    tokens: int,
    samples: int,
    progress: Progress,
) -> Iterator[Sample]:
    runner = LocalRunner(profile.name)
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        for index, shape in enumerate(sample_shapes(teacher, samples, seed=0)):
            progress("calibrate", index, samples, shape.describe())
            artifact = build(shape, random_weights(shape), Path(folder, "model"), engine=engine, tokens=tokens)
            result = runner.run(artifact, threads=threads, vocabulary=shape.vocabulary, cap_s=SAMPLE_CAP_S)
            if isinstance(result, Failure):
                progress("calibrate", index, samples, f"{shape.describe()}: {result.reason}")
            else:
                yield Sample.of(shape, tokens, result)


def _earlier(
    profile: DeviceProfile, engine: str, threads: int, retaken: set[tuple[ModelShape, int]]
) -> tuple[Sample, ...]:
    path = find(data_folders(MODELS)[:1], profile.name, engine, threads)
    known = None if path is None else load(path)
    if known is None or not _is_current(known, profile, engine):
        return ()
    return tuple(sample for sample in known.samples if (sample.shape, sample.tokens) not in retaken)


def _identity(profile: DeviceProfile, engine: str) -> dict[str, str]:
    return {"cpu": profile.cpu, "engine_version": profile.engines.get(engine, "unknown")}


def _is_current(known: FittedPredictor, profile: DeviceProfile, engine: str) -> bool:
    if profile.name != HOST:
        return True  # What a board's predictor was fitted on is in its provenance; this machine says nothing of it.
    return all(known.provenance.get(key) == value for key, value in _identity(profile, engine).items())


def _covers(known: FittedPredictor, teacher: ModelShape, tokens: int) -> bool:
    try:
        for shape in corners(teacher):
            known.predict(shape, tokens)
    except OutOfRangeError:
        return False
    return True
