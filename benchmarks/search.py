"""How many evaluations does a search need? ``python -m benchmarks.search [--quick]``.

Searches are replayed on a table of all candidates of one space (``benchmarks.search_table``): the search itself and
its predictions are real, the scores are looked up. Counted are scored candidates until one is within half a point of
the best inside the budget; what is over budget costs nothing, for whichever sampler. Ours is compared with chance, and
with what Optuna's samplers find without knowing what choices cost.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.compression.methods import reshape_plan
from autocompress.cost import Cost, Estimate
from autocompress.pipeline.candidates import choices, space_of
from autocompress.pipeline.sensitivities import Sensitivities, largest
from autocompress.pipeline.warm_start import WarmStart
from autocompress.plan import CompressionPlan
from autocompress.predictors.cost_table import CostTable
from autocompress.search.informed import Informed
from autocompress.search.objective import Objective, Params, Scored
from autocompress.search.proposing import DIRECTIONS, Proposer
from autocompress.search.study import search
from autocompress.shape import ModelShape
from benchmarks.search_table import TABLE, config_of

BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of the candidates that are inside each budget."""
WITHIN = 0.005
"""Of the best accuracy, as a share of 1."""
MOST = 150
"""Evaluations after which a search is given up; chance is counted to the end."""


@dataclass(frozen=True)
class Replay:
    """A space whose every candidate was scored.

    Attributes:
        shape: Of what students were made of.
        space: That was scored.
        sensitivities: Of its choices.
        rows: By shape: accuracy, its standard error, latency and what a budget is held against, both in milliseconds.
    """

    shape: ModelShape
    space: Space
    sensitivities: Sensitivities
    rows: Mapping[ModelShape, tuple[float, float, float, float]]

    @classmethod
    def load(cls, path: Path = TABLE) -> Replay:
        """Read the table."""
        table = json.loads(gzip.decompress(path.read_bytes()))
        shape = ModelShape.from_dict(table["shape"])
        space = space_of(config_of(Path()), shape)
        names = table["parameters"]
        nats = {name: dict(zip(names[name], costs, strict=True)) for name, costs in table["nats"].items()}
        drawing, base, rows = Drawing(shape, space), largest(space), {}
        for row in table["rows"]:
            params = {name: values[code] for (name, values), code in zip(names.items(), row[: len(names)], strict=True)}
            accuracy, error, latency_ms, held_ms, _ = row[len(names) :]
            rows[drawing({**base, **params}).shape] = accuracy, error, latency_ms, held_ms
        return cls(shape, space, Sensitivities(base, nats), rows)

    def limit_ms(self, share: float) -> float:
        """Return the budget that such a share of the candidates is inside of."""
        return float(np.quantile([held_ms for *_, held_ms in self.rows.values()], share))

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        """Return what the table says of a shape; only its latency means anything."""
        _, _, latency_ms, held_ms = self.rows[shape]
        latency, nothing = Estimate(latency_ms, latency_ms, held_ms), Estimate(1.0, 1.0, 1.0)
        return Cost(latency, latency, nothing, nothing, calibrated=True, source="table")

    def predict_many(self, shapes: Iterable[ModelShape], tokens: int) -> CostTable:
        """See ``Predictor.predict_many``."""
        return CostTable.of(self.predict(shape, tokens) for shape in shapes)

    @property
    def power_w(self) -> float | None:
        """Not known."""
        return None

    def objective(self, limit_ms: float) -> Objective:
        """Return what a search asks of candidates."""
        drawing = Drawing(self.shape, self.space)

        def score(plan: CompressionPlan) -> Scored:
            accuracy, error, *_ = self.rows[reshape_plan(self.shape, plan)]
            return Scored(accuracy, error)

        return Objective(
            choices=choices(self.space),
            draw=lambda params: drawing(params).plan,
            reshape=lambda plan: reshape_plan(self.shape, plan),
            predict=lambda shape: self.predict(shape, 0),
            score=score,
            limits={"latency_p50_ms": limit_ms},
        )

    def informed(self, limit_ms: float) -> Informed:
        """Return the proposer that knows what choices cost."""
        drawing = Drawing(self.shape, self.space)

        def foresee(candidates: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
            rows = [self.rows[drawing(params).shape] for params in candidates]
            return np.array([row[3] <= limit_ms for row in rows]), np.array([row[2] for row in rows])

        return Informed(self.sensitivities.nats, foresee)

    def warm(self, limit_ms: float) -> list[Params]:
        """Return where a search starts."""
        start = WarmStart(self.shape, self.space, self.sensitivities, self, tokens=0)
        return [solved.params for solved in start.ladder({"latency_p50_ms": limit_ms})]


def evaluations(
    replay: Replay,
    limit_ms: float,
    seed: int,
    *,
    sampler: str | Proposer,
    anchors: Sequence[Params] = (),
    most: int = MOST,
) -> tuple[int, float]:
    """Return after how many scores one is ``WITHIN`` the best, at most ``most`` + 1, and the seconds of the search."""
    inside = [accuracy for accuracy, _, _, held_ms in replay.rows.values() if held_ms <= limit_ms]
    scores: list[float] = []

    def found() -> bool:
        return bool(scores) and max(scores) >= max(inside) - WITHIN

    started = time.process_time()
    search(
        optuna.create_study(directions=DIRECTIONS),
        replay.objective(limit_ms),
        trials=most,
        seed=seed,
        sampler=sampler,
        parallel=1,
        anchors=anchors,
        out_of_time=found,
        on_record=lambda record: scores.append(record.score) if record.score is not None else None,
    )
    return (len(scores) if found() else most + 1), time.process_time() - started


def by_chance(replay: Replay, limit_ms: float, seed: int) -> int:
    """Return the same of candidates inside the budget in a random order."""
    inside = [accuracy for accuracy, _, _, held_ms in replay.rows.values() if held_ms <= limit_ms]
    order = np.random.default_rng(seed).permutation(inside)
    return 1 + int(np.flatnonzero(order >= max(inside) - WITHIN)[0])
