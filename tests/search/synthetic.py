"""A search without a model: a few choices, a known best one, and a cost that is a formula."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autocompress.cost import Cost, Estimate
from autocompress.plan import CompressionPlan
from autocompress.search.objective import Objective, Scored
from autocompress.search.storage import open_study
from autocompress.search.study import search
from autocompress.shape import LayerShape, ModelShape


@dataclass(frozen=True)
class WidthStep:
    method: ClassVar[str] = "width"
    layers: int
    ffn: int


CHOICES = {"layers": (1, 2, 3, 4, 6, 8, 12), "ffn": tuple(range(32, 544, 32)), "alone": ("one",)}


def draw(params) -> CompressionPlan:
    return CompressionPlan((WidthStep(params["layers"], params["ffn"]),))


def reshape(plan: CompressionPlan) -> ModelShape:
    (step,) = plan.steps
    return ModelShape("bert", 100, 32, 64, 64, (LayerShape(4, 16, step.ffn),) * step.layers, 2)


def predict(shape: ModelShape) -> Cost:
    latency = sum(1.0 + layer.ffn / 64 for layer in shape.layers)
    estimate = Estimate(latency, 0.9 * latency, 1.1 * latency)
    return Cost(estimate, estimate, Estimate(1, 1, 1), Estimate(1, 1, 1), calibrated=True, source="formula")


def score(plan: CompressionPlan) -> Scored:
    (step,) = plan.steps
    return Scored(1.0 - 0.5 / (1 + step.layers) - 8.0 / (32 + step.ffn), 0.01)


def glance(plan: CompressionPlan) -> Scored:
    """Score at less cost: lower, and with what no training would tell."""
    (step,) = plan.steps
    return Scored(0.5 * score(plan).value + 0.02 * (step.ffn % 7), 0.01)


def objective(limit_ms: float = 30.0, score=score, rungs=()) -> Objective:
    return Objective(CHOICES, draw, reshape, predict, score, {"latency_p50_ms": limit_ms}, rungs)


ANCHORS = ({"layers": 12, "ffn": 512}, {"layers": 6, "ffn": 256}, {"layers": 1, "ffn": 32})


def main(storage: str, log: Path, mode: str, trials: int = 14, parallel: int = 1, seconds: float = 0.05) -> None:
    """Search slowly, noting in ``log`` each plan that this process scores and each candidate that has a result."""
    study = open_study(storage, "run", resume=mode == "resume")
    with log.open("a", buffering=1) as lines:

        def slow(plan: CompressionPlan) -> Scored:
            (step,) = plan.steps
            lines.write(f"begins {step.layers} {step.ffn}\n")
            time.sleep(seconds)
            return glance(plan)

        search(
            study,
            objective(rungs=(slow,)),
            trials=trials,
            seed=7,
            parallel=parallel,
            anchors=ANCHORS,
            on_record=lambda record: lines.write(f"{record.number} {dict(record.params)}\n"),
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
