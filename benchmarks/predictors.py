"""How well does a predictor foresee models that it was not fitted on? ``python -m benchmarks.predictors [--quick]``.

Measures shapes to fit on, as ``autocompress profile`` draws them, and shapes of random plans, in one shuffled order on
this machine, in both engines; fits the first and foresees the second; no shape is in both. Shapes to foresee are
measured in several rounds, of which the median counts; how far the first two lie apart is the floor of any error.
``--hat`` adds what ``benchmarks.hat`` says of others' measurements.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Libraries read them when they start.
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TVM_NUM_THREADS"), "1")

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import spearmanr

from autocompress.cost import FIGURES
from autocompress.devices.load import load_profile
from autocompress.pipeline.known import identity
from autocompress.pipeline.prediction import COMMON
from autocompress.pipeline.tuning import tune_host
from autocompress.predictors.acquisition import most_telling
from autocompress.predictors.cost_table import HIGH, LOW, VALUE
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.sampling import BLOCK_EVERY, corners, is_block, sample_shapes
from autocompress.predictors.shape_table import ShapeTable
from autocompress.predictors.store import save
from autocompress.profiling.drift import drifted, reference_ms, waited_share, without_waiting
from autocompress.shape import ModelShape
from benchmarks import hat
from benchmarks.predictor_records import FIT_SEED, Taken, measure, wanted
from benchmarks.record import finish, print_table

ENGINES, THREADS, TOKENS = ("onnxruntime", "tvm"), 1, 64
CURVE = (16, 24, 48, 96)
"""Numbers of samples at which the error is also told."""
ASKED = 100_000
CONDITIONS = "virtual machine; other processes shared its cores, and waiting for them was taken off the samples"


@dataclass(frozen=True)
class Foreseen:
    """One figure of fresh shapes: predicted, then measured.

    Attributes:
        estimates: (shapes x 3), value and both ends.
        measured: (shapes,), medians over rounds.
        rounds: What was measured of each shape.
    """

    estimates: np.ndarray
    measured: np.ndarray
    rounds: tuple[tuple[float, ...], ...]

    @property
    def errors(self) -> np.ndarray:
        """Absolute errors (shapes,), as shares of the measured value."""
        return np.abs(self.estimates[:, VALUE] / self.measured - 1)

    def row(self) -> dict[str, float]:
        """Return mean and worst error, the share within 10 %, rank correlation, and what the intervals hold.

        An interval is one for a measurement, as those are that it was made from: its coverage is that of all rounds.
        """
        low, high = self.estimates[:, LOW], self.estimates[:, HIGH]
        held = [
            start <= value <= end for start, end, values in zip(low, high, self.rounds, strict=True) for value in values
        ]
        return {
            "mape": float(self.errors.mean()),
            "worst": float(self.errors.max()),
            "within_10_percent": float(np.mean(self.errors <= 0.1)),
            "rank_correlation": float(spearmanr(self.estimates[:, VALUE], self.measured).statistic),
            "coverage_90": float(np.mean(held)),
            "coverage_90_of_medians": float(np.mean((low <= self.measured) & (self.measured <= high))),
            "interval_width": float(np.median((high - low) / self.estimates[:, VALUE])),
        }


def samples(taken: Sequence[Taken]) -> tuple[Sample, ...]:
    """Return measurements as a fit takes them, in the order in which ``autocompress profile`` would take them."""
    chosen = set(corners(COMMON))
    order = {shape: place for place, shape in enumerate(sample_shapes(COMMON, len(taken), FIT_SEED))}
    found = [
        Sample.of(
            item.wanted.shape,
            TOKENS,
            without_waiting(item.measurement),
            drawn=item.wanted.shape not in chosen and not is_block(item.wanted.shape, COMMON),
        )
        for item in taken
    ]
    return tuple(sorted(found, key=lambda sample: order[sample.shape]))


def fitted(engine: str, some: Sequence[Sample]) -> FittedPredictor:
    """Fit some of the samples."""
    provenance = {**identity(load_profile("host"), engine), "date": datetime.now(UTC).date().isoformat()}
    return fit(some, device="host", engine=engine, threads=THREADS, provenance=provenance)


def telling(some: Sequence[Sample], count: int) -> list[Sample]:
    """Return ``count`` samples as ``autocompress profile`` takes them, as far as ``some`` holds them.

    After the corners three in four are the next ones drawn; the fourth is the one of all others that is expected to
    tell the most, given the latencies so far.
    """
    cornered = set(corners(COMMON))
    taken = [sample for sample in some if sample.shape in cornered]
    rest = [sample for sample in some if sample.shape not in cornered]
    asked = [sample.shape for sample in some if sample.drawn]
    while len(taken) < count:
        chosen = next(sample for sample in rest if sample.drawn)
        if (len(taken) - len(cornered)) % BLOCK_EVERY == BLOCK_EVERY - 1:
            known = [sample.shape for sample in taken], np.array([sample.latency_p50_ms for sample in taken])
            shape = most_telling([sample.shape for sample in rest], asked, [known], TOKENS)
            chosen = next(sample for sample in rest if sample.shape == shape)
        taken.append(chosen)
        rest.remove(chosen)
    return taken


def foresee(predictor: FittedPredictor, fresh: Mapping[ModelShape, Sequence[Taken]], figure: str) -> Foreseen:
    """Predict a figure of fresh shapes; what counts as measured is the median over a shape's rounds."""
    table = predictor.predict_many(fresh, TOKENS)
    if not table.known.all():
        raise RuntimeError("a fresh shape lies outside the fitted range")
    every = [rounds(taken, figure) for taken in fresh.values()]
    return Foreseen(table.figures[figure], np.array([np.median(each) for each in every]), tuple(map(tuple, every)))


def rounds(taken: Sequence[Taken], figure: str) -> list[float]:
    """Return a figure of each measurement of one shape, waiting taken off."""
    return [without_waiting(item.measurement).figures()[figure] for item in taken]


def floor(fresh: Mapping[ModelShape, Sequence[Taken]]) -> dict[str, float]:
    """Return how far the first two measurements of a shape lie apart (mean, worst), as shares of the first."""
    both = np.array([rounds(taken, "latency_p50_ms")[:2] for taken in fresh.values() if len(taken) > 1])
    apart = np.abs(both[:, 1] / both[:, 0] - 1)
    return {"mean": float(apart.mean()), "worst": float(apart.max()), "pairs": len(both)}


def shapes_per_second(predictor: FittedPredictor, *, layers: int = 6) -> float:
    """Return how many random plans a predictor foresees in a second, from arrays of choices to all four figures."""
    rng = np.random.default_rng(0)
    size, teacher = (ASKED, layers), replace(COMMON, layers=COMMON.layers[:1] * layers)
    rates = []
    for _ in range(5):
        start_s = time.perf_counter()
        table = ShapeTable.of_choices(
            teacher,
            kept=np.arange(layers) < rng.integers(1, layers + 1, (ASKED, 1)),
            heads=rng.integers(1, 13, size),
            ffn=32 * rng.integers(1, 49, size),
            attention_in_bits=rng.choice([4, 8, 32], size),
            attention_out_bits=rng.choice([4, 8, 32], size),
            ffn_in_bits=rng.choice([4, 8, 32], size),
            ffn_out_bits=rng.choice([4, 8, 32], size),
            embedding_bits=rng.choice([4, 8, 32], ASKED),
        )
        predictor.predict_many(table, TOKENS)
        rates.append(ASKED / (time.perf_counter() - start_s))
    return median(rates)


def report(engine: str, taken: Sequence[Taken]) -> tuple[FittedPredictor, dict[str, object]]:
    """Print the tables of one engine and return its predictor and figures."""
    fitting = [item for item in taken if item.wanted.role == "fit"]
    some, fresh = samples(fitting), defaultdict[ModelShape, list[Taken]](list)
    for item in sorted((item for item in taken if item.wanted.role == "fresh"), key=lambda item: item.wanted.round):
        fresh[item.wanted.shape].append(item)
    predictor = fitted(engine, some)
    rows = {figure: foresee(predictor, fresh, figure).row() for figure in FIGURES}
    apart = floor(fresh)
    every = {str(position): item.measurement for position, item in enumerate(taken)}
    disturbed = len(drifted(every)) / len(every)
    latency = predictor.figures["latency_p50_ms"]
    print(
        f"\n{engine}: {len(some)} samples fitted ({latency.family}), {len(fresh)} fresh shapes; two rounds of these"
        f" are {apart['mean']:.1%} apart in the mean, {apart['worst']:.1%} at worst ({apart['pairs']} pairs);"
        f" {disturbed:.0%} of the measurements still disturbed"
    )
    header = ["figure", "MAPE", "worst", "within 10 %", "rank corr.", "in 90 % interval", "medians in it", "its width"]
    print_table(header, [[name, *(_cell(key, value) for key, value in row.items())] for name, row in rows.items()])
    curve = {
        str(count): foresee(fitted(engine, some[:count]), fresh, "latency_p50_ms").row()
        for count in (*CURVE, len(some))
        if count <= len(some)
    }
    chosen = {
        str(count): foresee(fitted(engine, telling(some, count)), fresh, "latency_p50_ms").row()
        for count in CURVE[1:]
        if count < len(some)
    }
    print_table(
        header,
        [
            [f"p50, {n} samples{how}", *(_cell(*cell) for cell in row.items())]
            for how, rows_ in ((", blocks in turn", curve), (", every fourth chosen", chosen))
            for n, row in rows_.items()
        ],
    )
    whole = [sample for sample in some if not is_block(sample.shape, COMMON)]
    without_blocks = foresee(fitted(engine, whole), fresh, "latency_p50_ms").row()
    return predictor, {
        "samples": len(some),
        "fresh": len(fresh),
        "family": latency.family,
        "scores": {score.family: round(score.mape, 5) for score in latency.scores},
        "noise_floor": _rounded(apart),
        "disturbed": round(disturbed, 4),
        "reference_ms": round(median(reference_ms(item.measurement) for item in taken), 4),
        "waited_share": round(median(waited_share(item.measurement) for item in taken), 4),
        "calibration_s": round(sum(item.spent_s for item in fitting), 1),
        "shapes_per_second": round(shapes_per_second(predictor)),
        "errors": {name: _rounded(row) for name, row in rows.items()},
        "by_samples": {count: _rounded(row) for count, row in curve.items()},
        "by_samples_chosen": {count: _rounded(row) for count, row in chosen.items()},
        "without_blocks": {"samples": len(whole), **_rounded(without_blocks)},
    }


def headline(found: Mapping[str, Mapping[str, dict]]) -> dict[str, object]:
    """Return the figures of both engines as one: of errors the worse, of shares the smaller, coverage pooled."""
    rows = [each["errors"] for each in found.values()]
    latency = [row["latency_p50_ms"] for row in rows]
    return {
        "within_10_percent": min(row["within_10_percent"] for row in latency),
        "mape": max(row["mape"] for row in latency),
        "rank_correlation": min(row["rank_correlation"] for row in latency),
        "coverage_90": round(sum(row["coverage_90"] for row in latency) / len(latency), 4),
        "memory_mape": max(row["peak_memory_bytes"]["mape"] for row in rows),
        "size_mape": max(row["size_bytes"]["mape"] for row in rows),
        "shapes_per_second": min(each["shapes_per_second"] for each in found.values()),
        "calibration_minutes": round(sum(each["calibration_s"] for each in found.values()) / 60, 1),
    }


def hat_figures(path: Path, *, quick: bool) -> Mapping[str, float]:
    """Return how HAT's measurements are foreseen: from the folder of these, or as ``benchmarks.hat`` has written it."""
    if path.is_dir():
        return hat.report(path, quick=quick)[0]
    figures: Mapping[str, float] = json.loads(path.read_text())["figures"]
    return figures


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give a folder that takes the place of the user's, so that nothing known of this machine is used or replaced."""
    before = os.environ.get("AUTOCOMPRESS_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["AUTOCOMPRESS_HOME"] = home
        try:
            yield Path(home)
        finally:
            os.environ.pop("AUTOCOMPRESS_HOME")
            os.environ.update({} if before is None else {"AUTOCOMPRESS_HOME": before})


def ship(predictor: FittedPredictor, device: str) -> Path:
    """Write a predictor of this machine as that of the profile ``device``, for machines of its kind."""
    provenance: Mapping[str, str] = {**predictor.provenance, "conditions": CONDITIONS}
    folder = Path(__file__).parents[1] / "latency_models"
    return save(replace(predictor, device=load_profile(device).name, provenance=provenance), folder)


def main() -> None:
    """Measure, fit, foresee, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 samples, 8 fresh shapes twice, untuned")
    parser.add_argument("--records", type=Path, help="keep measurements in this file, and go on with what it holds")
    parser.add_argument("--hat", type=Path, help="the folder with HAT's files of records, or results of benchmarks.hat")
    parser.add_argument("--ship", metavar="DEVICE", help="also write the predictors into latency_models/, as DEVICE's")
    arguments = parser.parse_args()
    fitting, fresh, count = (16, 8, 2) if arguments.quick else (160, 220, 3)
    with own_folder() as home:
        if not arguments.quick:
            tune_host(sample_shapes(COMMON, 24, FIT_SEED), tokens=TOKENS, how="tiles")
        wants = wanted(COMMON, ENGINES, fit=fitting, fresh=fresh, rounds=count)
        taken = measure(wants, arguments.records or home / "records.jsonl", threads=THREADS, tokens=TOKENS)
        found: dict[str, dict] = {}
        for engine in ENGINES:
            of_engine = [item for item in taken if item.wanted.engine == engine]
            predictor, found[engine] = report(engine, of_engine)
            if arguments.ship:
                ship(predictor, arguments.ship)
    figures = headline(found)
    if arguments.hat:
        figures |= hat_figures(arguments.hat, quick=arguments.quick)
    keys = tuple(figures)
    details = {"measured": [_plain(item) for item in taken]}
    finish("predictors", {**figures, **found}, quick=arguments.quick, details=details, headline=keys)


def _plain(taken: Taken) -> dict[str, object]:
    measurement = taken.measurement
    return {
        "engine": taken.wanted.engine,
        "role": taken.wanted.role,
        "shape": taken.wanted.shape.describe(),
        "round": taken.wanted.round,
        **without_waiting(measurement).figures(),
        "raw_p50_ms": measurement.latency_p50_ms,
        "reference_ms": reference_ms(measurement),
        "waited_share": round(waited_share(measurement), 4),
    }


def _cell(key: str, value: float) -> str:
    return f"{value:.4f}" if key == "rank_correlation" else f"{value:.1%}"


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 5) for key, value in row.items()}


if __name__ == "__main__":
    main()
