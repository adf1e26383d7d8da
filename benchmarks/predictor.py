"""How well does a predictor foresee shapes that it was not fitted on? ``python -m benchmarks.predictor [--quick]``.

Profiles this machine as ``autocompress profile`` does, then predicts and measures shapes drawn with another seed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from autocompress import load_profile, profile_device
from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import LIMITS, Cost, Failure, Measurement
from autocompress.pipeline.prediction import COMMON
from autocompress.pipeline.profiling import SAMPLE_CAP_S
from autocompress.predictors.intervals import COVERAGE, held_out
from autocompress.predictors.predictor import FittedPredictor
from autocompress.predictors.sampling import corners, sample_shapes
from autocompress.predictors.store import save
from autocompress.profiling.drift import reference_ms, remeasure_drifted, waited_share, without_waiting
from autocompress.profiling.runner import LocalRunner
from autocompress.profiling.timing import Timing
from autocompress.shape import ModelShape
from benchmarks.record import finish, print_table

THREADS, TOKENS = 1, 64
FRESH_SEED = 1
"""Calibration draws with seed 0."""
CONDITIONS = "virtual machine; other processes shared its cores, and waiting for them was taken off the samples"


@dataclass(frozen=True)
class Fresh:
    """One shape that the predictor never saw: foreseen, then measured."""

    shape: ModelShape
    predicted: Cost
    measured: Measurement


def calibrate(engine: str, samples: int) -> tuple[FittedPredictor, float]:
    """Fit on this machine, from nothing that an earlier profiling took, and return the seconds that it took too."""
    before = os.environ.get("AUTOCOMPRESS_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["AUTOCOMPRESS_HOME"] = home
        try:
            start_s = time.monotonic()
            predictor = profile_device(
                load_profile("host"),
                COMMON,
                engines=(engine,),
                threads=THREADS,
                tokens=TOKENS,
                samples=samples,
                progress=_dots(engine),
            )[engine]
            return predictor, time.monotonic() - start_s
        finally:
            os.environ.pop("AUTOCOMPRESS_HOME")
            os.environ.update({} if before is None else {"AUTOCOMPRESS_HOME": before})


def fresh_shapes(predictor: FittedPredictor, count: int) -> tuple[ModelShape, ...]:
    """Return ``count`` shapes within the same teacher that are neither samples of the fit nor corners."""
    seen = {sample.shape for sample in predictor.samples} | set(corners(COMMON))
    drawn = sample_shapes(COMMON, 2 * count + len(corners(COMMON)), seed=FRESH_SEED)
    return tuple(shape for shape in drawn if shape not in seen)[:count]


def measure_fresh(predictor: FittedPredictor, count: int) -> tuple[Fresh, ...]:
    """Measure fresh shapes as the calibration measures, waiting for the processor taken off, and predict them.

    Raises:
        RuntimeError: A shape cannot be built or run: a benchmark with holes says nothing.
    """
    shapes = {str(index): shape for index, shape in enumerate(fresh_shapes(predictor, count))}
    progress = _dots(f"{predictor.engine}, fresh")

    def measure(name: str) -> Measurement | Failure:
        progress("measure", int(name), len(shapes), shapes[name].describe())
        with tempfile.TemporaryDirectory() as folder:
            weights = random_weights(shapes[name], seed=FRESH_SEED)
            artifact = build(shapes[name], weights, Path(folder, "model"), engine=predictor.engine, tokens=TOKENS)
            timing = Timing(THREADS, COMMON.vocabulary, cap_s=SAMPLE_CAP_S, seed=FRESH_SEED)
            return LocalRunner("host").run(artifact, timing)

    results = remeasure_drifted({name: measure(name) for name in shapes}, measure, at_most=count // 4)
    found = []
    for name, result in results.items():
        if isinstance(result, Failure):
            raise RuntimeError(f"{shapes[name].describe()}: {result.reason}")
        found.append(Fresh(shapes[name], predictor.predict(shapes[name], TOKENS), result))
    return tuple(found)


def errors(fresh: Sequence[Fresh], figure: str, quiet: Callable[[Measurement], Measurement]) -> dict[str, float]:
    """Return the errors of one figure on fresh shapes, as shares of the measured value, and its intervals' coverage.

    Args:
        fresh: What was foreseen and measured.
        figure: One of ``cost.LIMITS``.
        quiet: What is done to a measurement first.
    """
    estimates = [getattr(item.predicted, figure) for item in fresh]
    measured = [quiet(item.measured).figures()[figure] for item in fresh]
    found = held_out(np.array([estimate.value for estimate in estimates]), np.array(measured))
    held = [low.low <= value <= low.high for low, value in zip(estimates, measured, strict=True)]
    widths = [(estimate.high - estimate.low) / estimate.value for estimate in estimates]
    return {
        "mape": found.mape,
        "worst": found.worst,
        "within_10_percent": found.within_10_percent,
        "coverage": float(np.mean(held)),
        "interval_width": median(widths),
    }


def report(predictor: FittedPredictor, seconds: float, fresh: Sequence[Fresh]) -> dict[str, object]:
    """Print the table of one engine and return its figures."""
    rows: dict[str, dict[str, float]] = {figure: errors(fresh, figure, without_waiting) for figure in LIMITS}
    rows |= {f"{figure}, raw": errors(fresh, figure, lambda raw: raw) for figure in LIMITS[:2]}
    kernel_ms = median(reference_ms(item.measured) for item in fresh)
    waited = median(waited_share(item.measured) for item in fresh)
    print(
        f"\n{predictor.engine}: {len(predictor.samples)} samples in {seconds:.0f} s, {len(fresh)} fresh shapes;"
        f" reference kernel {kernel_ms:.3f} ms, waited {waited:.1%} of the time (medians)"
    )
    print_table(
        ["figure", "MAPE", "worst", "within 10 %", f"in {COVERAGE:.0%} interval", "width of interval"],
        [[name, *(f"{value:.1%}" for value in row.values())] for name, row in rows.items()],
    )
    return {
        "samples": len(predictor.samples),
        "fresh": len(fresh),
        "calibration_s": round(seconds, 1),
        "reference_ms": round(kernel_ms, 4),
        "waited_share": round(waited, 4),
        "errors": {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()},
    }


def _details(fresh: Sequence[Fresh]) -> list[dict[str, object]]:
    return [
        {"shape": item.shape.to_dict(), "predicted": item.predicted.to_dict(), "measured": item.measured.to_dict()}
        for item in fresh
    ]


def _dots(what: str) -> Callable[[str, int, int, str], None]:
    return lambda stage, done, total, note: print(f"  {what}: {stage} {done}/{total} {note}", flush=True)


def main() -> None:
    """Profile, measure fresh shapes, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ONNX Runtime only, 12 samples, 8 fresh shapes")
    parser.add_argument("--ship", metavar="DEVICE", help="also write the predictors into latency_models/, as DEVICE's")
    arguments = parser.parse_args()
    engines, samples, count = (("onnxruntime",), 12, 8) if arguments.quick else (("onnxruntime", "tvm"), 24, 20)
    figures: dict[str, object] = {}
    details: dict[str, object] = {}
    for engine in engines:
        predictor, seconds = calibrate(engine, samples)
        fresh = measure_fresh(predictor, count)
        figures[engine] = report(predictor, seconds, fresh)
        details[engine] = {"fresh": _details(fresh), "predictor": predictor.to_dict()}
        if arguments.ship:
            ship(predictor, arguments.ship)
    finish("predictor", figures, quick=arguments.quick, details=details)


def ship(predictor: FittedPredictor, device: str) -> Path:
    """Write a predictor of this machine as that of the profile ``device``, for machines of its kind."""
    provenance: Mapping[str, str] = {**predictor.provenance, "conditions": CONDITIONS}
    folder = Path(__file__).parents[1] / "latency_models"
    return save(replace(predictor, device=load_profile(device).name, provenance=provenance), folder)


if __name__ == "__main__":
    main()
