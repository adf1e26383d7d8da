"""How many samples does a fresh device need, if another one is known? ``python -m benchmarks.transfer [--quick]``.

Two devices that differ from a known one are made of this machine: code for a processor without AVX-512 and VNNI (TVM),
and two threads (ONNX Runtime). A few shapes of each are measured and fitted, once alone and once starting from the
predictor of the known one in ``latency_models/``; both foresee random plans that neither was fitted on.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reads it when it starts.

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.devices.load import load_profile
from autocompress.pipeline.prediction import COMMON
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.store import file_name, load
from benchmarks.predictor_records import Taken, measure, wanted
from benchmarks.predictors import TOKENS, foresee, own_folder, samples
from benchmarks.record import finish, print_table

KNOWN = "amd-epyc-zen4"
CURVE = (9, 12, 16, 24)
"""Numbers of samples."""
LATENCY = "latency_p50_ms"


@dataclass(frozen=True)
class Variant:
    """A device that this machine can pass for.

    Attributes:
        name: What it is.
        engine: Key of ``engines.ENGINES``.
        threads: Of the engine.
        like: The device whose code is run; "" for this machine's own.
    """

    name: str
    engine: str
    threads: int
    like: str = ""


VARIANTS = (
    Variant("AVX2 code", "tvm", 1, "generic-x86-avx2"),
    Variant("two threads", "onnxruntime", 2),
)


def known_one(engine: str) -> FittedPredictor:
    """Return the predictor to start from."""
    return load(Path(__file__).parents[1] / "latency_models" / file_name(KNOWN, engine, 1))


def errors(
    variant: Variant, some: Sequence[Sample], taken: Sequence[Taken], known: Sequence[FittedPredictor]
) -> dict[str, float | str]:
    """Return how well a fit of ``some`` samples foresees the fresh shapes among ``taken``."""
    predictor = fit(
        some, device=variant.name, engine=variant.engine, threads=variant.threads, provenance={}, known=known
    )
    fresh = {item.wanted.shape: [item] for item in taken if item.wanted.role == "fresh"}
    row = foresee(predictor, fresh, LATENCY).row()
    return {"family": predictor.figures[LATENCY].family, **{key: round(value, 5) for key, value in row.items()}}


def report(variant: Variant, taken: Sequence[Taken]) -> dict[str, object]:
    """Print the table of one device and return its figures."""
    some = samples([item for item in taken if item.wanted.role == "fit"])
    starts: Mapping[str, tuple[FittedPredictor, ...]] = {"alone": (), f"from {KNOWN}": (known_one(variant.engine),)}
    found = {
        str(count): {name: errors(variant, some[:count], taken, known) for name, known in starts.items()}
        for count in CURVE
        if count <= len(some)
    }
    print(f"\n{variant.engine}, {variant.name}: latency of {len(taken) - len(some)} fresh shapes")
    print_table(
        ["samples", "fitted", "family", "MAPE", "within 10 %", "rank corr."],
        [
            [
                count,
                name,
                row["family"],
                *(f"{row[key]:.3f}" for key in ("mape", "within_10_percent", "rank_correlation")),
            ]
            for count, each in found.items()
            for name, row in each.items()
        ],
    )
    return {"engine": variant.engine, "errors": found}


def main() -> None:
    """Measure, fit and foresee each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 samples, 10 fresh shapes")
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="keep measurements there, and go on with them")
    arguments = parser.parse_args()
    fitting, fresh = (12, 10) if arguments.quick else (24, 60)
    found, details = {}, {}
    with own_folder() as home:
        folder = arguments.records or home
        folder.mkdir(parents=True, exist_ok=True)
        for variant in VARIANTS:
            wants = wanted(COMMON, (variant.engine,), fit=fitting, fresh=fresh, rounds=1)
            target = load_profile(variant.like).tvm_target if variant.like else None
            path = folder / f"{variant.name.replace(' ', '-')}.jsonl"
            taken = measure(wants, path, threads=variant.threads, tokens=TOKENS, target=target)
            found[variant.name] = report(variant, taken)
            details[variant.name] = [
                {"role": item.wanted.role, "shape": item.wanted.shape.describe(), **item.measurement.figures()}
                for item in taken
            ]
    finish("transfer", found, quick=arguments.quick, details=details)


if __name__ == "__main__":
    main()
