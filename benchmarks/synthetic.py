"""Searches whose evaluations cost nothing: what is left of them is the search itself.

One is a formula from choices to cost and score, with 110,592 combinations of which about half are inside the budget.
The other draws and foresees real plans of MiniLM-L6, with the predictor that is kept for one thread of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from pathlib import Path
from typing import ClassVar

import numpy as np

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.compression.methods import reshape_plan
from autocompress.cost import Cost, Estimate
from autocompress.pipeline.candidates import choices
from autocompress.pipeline.prediction import COMMON
from autocompress.plan import CompressionPlan
from autocompress.predictors.cost_table import VALUE
from autocompress.predictors.store import load
from autocompress.search.informed import Foreseen, Informed
from autocompress.search.objective import Choices, Objective, Params, Scored, foresee
from autocompress.search.proposing import SAMPLERS, Proposer
from autocompress.search.surrogate import Nats
from autocompress.shape import LayerShape, ModelShape

PREDICTOR = Path(__file__).parents[1] / "latency_models" / "amd-epyc-zen4-onnxruntime-1t.json"
TOKENS, STANDARD_ERROR = 64, 0.01
FORMULA_LIMIT_MS, SHARE_OF_LATENCY = 20.0, 0.6
DRAWN: Choices = {
    "layers": tuple(range(1, 9)),
    "heads": tuple(range(1, 9)),
    "ffn": tuple(range(32, 2080, 32)),
    "attention_bits": (32, 8, 4),
    "ffn_bits": (32, 8, 4),
    "embedding_bits": (32, 8, 4),
}


@dataclass(frozen=True)
class WidthStep:
    """All that the formula chooses."""

    method: ClassVar[str] = "width"
    layers: int
    heads: int
    ffn: int
    attention_bits: int
    ffn_bits: int
    embedding_bits: int


@dataclass(frozen=True)
class Synthetic:
    """A search without a model to train.

    Attributes:
        objective: What it asks about a candidate.
        samplers: What may propose, by name.
    """

    objective: Objective
    samplers: Mapping[str, Proposer]

    def with_each(self, before: Callable[[CompressionPlan], object]) -> Synthetic:
        """Return the same with something that is done before each score: to wait, or to note it."""
        score = self.objective.score

        def scored(plan: CompressionPlan) -> Scored:
            before(plan)
            return score(plan)

        return replace(self, objective=replace(self.objective, score=scored))


def formula() -> Synthetic:
    """Return the search whose costs are a formula, too."""
    objective = Objective(
        choices=DRAWN,
        draw=lambda params: CompressionPlan((WidthStep(**params),)),
        reshape=_shape_of,
        predict=_cost,
        score=lambda plan: _score(_shape_of(plan)),
        limits={"latency_p50_ms": FORMULA_LIMIT_MS},
    )

    def foreseen(candidates: Sequence[Params]) -> Foreseen:
        found = [foresee(objective.draw(params), objective) for params in candidates]
        latencies = np.array([each.cost.latency_p50_ms.value for each in found])
        return np.array([each.inside for each in found]), latencies

    return Synthetic(objective, {**SAMPLERS, "informed": Informed(_nats(DRAWN), foreseen)})


def minilm(*, per_layer: bool) -> Synthetic:
    """Return the search over MiniLM-L6 in at most 0.6 of its latency: 1,620 combinations, or 2.4e13 a layer's own."""
    layers = len(COMMON.layers)
    space = Space(depth=tuple(range(2, layers + 1)), own_layers=tuple(range(layers)) if per_layer else ())
    offered = {name: values for name, values in choices(space).items() if len(values) > 1}
    drawing, predictor = Drawing(COMMON, space), load(PREDICTOR)
    limit_ms = SHARE_OF_LATENCY * predictor.predict(COMMON, TOKENS).held()["latency_p50_ms"]

    def foreseen(candidates: Sequence[Params]) -> Foreseen:
        costs = predictor.predict_many([drawing(params).shape for params in candidates], TOKENS)
        inside = costs.known & (costs.held()["latency_p50_ms"] <= limit_ms)
        return np.asarray(inside), costs.figures["latency_p50_ms"][:, VALUE]

    objective = Objective(
        choices=offered,
        draw=lambda params: drawing(params).plan,
        reshape=lambda plan: reshape_plan(COMMON, plan),
        predict=lambda shape: predictor.predict(shape, TOKENS),
        score=lambda plan: _score(reshape_plan(COMMON, plan)),
        limits={"latency_p50_ms": limit_ms},
    )
    return Synthetic(objective, {**SAMPLERS, "informed": Informed(_nats(offered), foreseen)})


def _shape_of(plan: CompressionPlan) -> ModelShape:
    (step,) = plan.steps
    assert isinstance(step, WidthStep)
    attention, ffn = (step.attention_bits,) * 2, (step.ffn_bits,) * 2
    layer = LayerShape(step.heads, 32, step.ffn, *attention, *ffn)
    return ModelShape("bert", 1000, 128, 256, 256, (layer,) * step.layers, 2, embedding_bits=step.embedding_bits)


def _cost(shape: ModelShape) -> Cost:
    attention = sum((0.2 + 0.1 * layer.heads) * layer.attention_in_bits**0.5 for layer in shape.layers)
    ms = 0.2 * attention + sum(layer.ffn / 1024 * layer.ffn_in_bits**0.5 for layer in shape.layers)
    latency, nothing = Estimate(ms, 0.9 * ms, 1.1 * ms), Estimate(1, 1, 1)
    return Cost(latency, latency, nothing, nothing, calibrated=True, source="formula")


def _score(shape: ModelShape) -> Scored:
    """Return what grows with depth, widths and bits, each with less and less."""
    lost = 0.1 / (1 + len(shape.layers)) + 0.1 / shape.embedding_bits
    for index, layer in enumerate(shape.layers, 1):
        lost += (0.05 / layer.heads + 1 / (100 + layer.ffn) + 0.02 * sum(1 / bits for bits in layer.bits)) / index
    return Scored(0.95 - lost, STANDARD_ERROR)


def _nats(offered: Choices) -> Nats:
    """Return what each choice might cost alone: the less of something is left, the more."""

    def costs(values: Sequence[object]) -> dict[object, float]:
        sizes = {value: float(str(value)) for value in values}
        most = max(sizes.values())
        return {value: 0.1 * sqrt(log(most / size)) for value, size in sizes.items()}

    return {name: costs(values) for name, values in offered.items()}
