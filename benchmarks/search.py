"""How many evaluations does a search need? ``python -m benchmarks.search [--quick]``.

Searches are replayed on a table of all candidates of one space (``benchmarks.search_table``): the search itself and
its predictions are real, the scores are looked up. Counted are scored candidates until one is within half a point of
the best inside the budget; what is over budget costs nothing, for whichever sampler. Ours is compared with chance, and
with what Optuna's samplers find without knowing what choices cost. ``latency_vs_best_sequential`` is what
``benchmarks.joint``, which takes hours, found when it ran last.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

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
from autocompress.search.proposing import DIRECTIONS, SAMPLERS, Proposer
from autocompress.search.records import Record
from autocompress.search.study import search
from autocompress.shape import ModelShape
from benchmarks.record import finish, kept, print_table
from benchmarks.search_table import TABLE, config_of

BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of the candidates that are inside each budget."""
WITHIN = 0.005
"""Of the best accuracy, as a share of 1."""
MOST = 150
"""Evaluations after which a search is given up; chance is counted to the end."""
GLANCE = 0.25
"""What it costs to cut, repair, round and score a candidate, as a share of what it costs to train it too."""
WARM = 2
"""Candidates of the knapsack that ours tries first, as a search does by default."""
COUNTS = (1, 2, 5, 10, 20, 50, 100)
"""Evaluations after which fronts are shown."""
WAYS = ("random", "tpe", "informed")
Tried: TypeAlias = tuple[float, float]
"""Predicted latency in milliseconds, and accuracy."""


@dataclass(frozen=True)
class Replay:
    """A space whose every candidate was scored.

    Attributes:
        shape: Of what students were made of.
        space: That was scored.
        sensitivities: Of its choices.
        rows: By shape: accuracy, its standard error, latency and what a budget is held against, both in milliseconds.
        untrained: By shape, the score before training; of none in tables that were made before this was asked.
    """

    shape: ModelShape
    space: Space
    sensitivities: Sensitivities
    rows: Mapping[ModelShape, tuple[float, float, float, float]]
    untrained: Mapping[ModelShape, Scored]

    @classmethod
    def load(cls, path: Path = TABLE) -> Replay:
        """Read the table."""
        table = json.loads(gzip.decompress(path.read_bytes()))
        shape = ModelShape.from_dict(table["shape"])
        space = space_of(config_of(Path()), shape)
        names = table["parameters"]
        nats = {name: dict(zip(names[name], costs, strict=True)) for name, costs in table["nats"].items()}
        drawing, base = Drawing(shape, space), largest(space)
        rows, untrained = {}, {}
        for row in table["rows"]:
            params = {name: values[code] for (name, values), code in zip(names.items(), row[: len(names)], strict=True)}
            accuracy, error, latency_ms, held_ms, _, *before = row[len(names) :]
            drawn = drawing({**base, **params}).shape
            rows[drawn] = accuracy, error, latency_ms, held_ms
            if before:
                untrained[drawn] = Scored(*before)
        return cls(shape, space, Sensitivities(base, nats), rows, untrained)

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

    def objective(self, limit_ms: float, *, rungs: bool = False) -> Objective:
        """Return what a search asks of candidates, of which with ``rungs`` only the best are trained."""
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
            rungs=[lambda plan: self.untrained[reshape_plan(self.shape, plan)]] if rungs else (),
        )

    def informed(self, limit_ms: float) -> Informed:
        """Return the proposer that knows what choices cost."""
        drawing = Drawing(self.shape, self.space)

        def foresee(candidates: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
            rows = [self.rows[drawing(params).shape] for params in candidates]
            return np.array([row[3] <= limit_ms for row in rows]), np.array([row[2] for row in rows])

        return Informed(self.sensitivities.nats, foresee)

    def warm(self, limit_ms: float) -> list[Params]:
        """Return where a search starts that knows what choices cost."""
        start = WarmStart(
            self.shape, self.space, self.sensitivities, lambda shapes: self.predict_many(shapes, 0).held()
        )
        return [solved.params for solved in start.ladder({"latency_p50_ms": limit_ms})][:WARM]


def scores_of(
    replay: Replay, limit_ms: float, proposer: Proposer, seed: int, *, most: int, enough: float = np.inf
) -> list[Tried]:
    """Search until a score is ``enough``, or ``most`` are scored, and return these in their order."""
    tried: list[Tried] = []

    def on_record(record: Record) -> None:
        if record.score is not None:
            tried.append((record.latency_ms, record.score))

    search(
        optuna.create_study(directions=DIRECTIONS),
        replay.objective(limit_ms),
        trials=most,
        seed=seed,
        proposer=proposer,
        parallel=1,
        anchors=replay.warm(limit_ms) if isinstance(proposer, Informed) else (),
        out_of_time=lambda: any(score >= enough for _, score in tried),
        on_record=on_record,
    )
    return tried


def evaluations(replay: Replay, limit_ms: float, proposer: Proposer | None, seed: int) -> int:
    """Return after how many scores one is ``WITHIN`` the best; of Optuna's samplers and ours at most ``MOST`` + 1.

    Without a proposer candidates inside the budget come in a random order, to the end.
    """
    inside = [accuracy for accuracy, _, _, held_ms in replay.rows.values() if held_ms <= limit_ms]
    enough = max(inside) - WITHIN
    if proposer is None:
        scores = np.random.default_rng(seed).permutation(inside).tolist()
    else:
        scores = [score for _, score in scores_of(replay, limit_ms, proposer, seed, most=MOST, enough=enough)]
    return next((at for at, score in enumerate(scores, 1) if score >= enough), MOST + 1)


def training(replay: Replay, limit_ms: float, proposer: Proposer, seed: int, *, rungs: bool) -> float:
    """Return what it costs until a score is ``WITHIN`` the best, in trained candidates; at most about ``MOST``."""
    enough = max(accuracy for accuracy, _, _, held_ms in replay.rows.values() if held_ms <= limit_ms) - WITHIN
    spent, reached = 0.0, False

    def on_record(record: Record) -> None:
        nonlocal spent, reached
        spent += GLANCE * len(record.rungs) + (record.score is not None)
        reached = reached or (record.score or 0.0) >= enough

    search(
        optuna.create_study(directions=DIRECTIONS),
        replay.objective(limit_ms, rungs=rungs),
        trials=len(replay.rows),
        seed=seed,
        proposer=proposer,
        parallel=1,
        anchors=replay.warm(limit_ms) if isinstance(proposer, Informed) else (),
        out_of_time=lambda: reached or spent >= MOST,
        on_record=on_record,
    )
    return spent


def ladders(replay: Replay, seeds: int, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Print and return what each way to search costs where every candidate is trained, and where the best are."""
    rows = []
    for share in budgets:
        limit_ms, found = replay.limit_ms(share), dict[str, float]()
        ways = {"random": SAMPLERS["random"], "tpe": SAMPLERS["tpe"], "informed": replay.informed(limit_ms)}
        for name, way in ways.items():
            each, climbing = (
                [training(replay, limit_ms, way, seed, rungs=rungs) for seed in range(seeds)] for rungs in (False, True)
            )
            found |= {name: median(each), f"{name}, rungs": median(climbing)}
        rows.append({"share": share, **found})
    names = [name for name in rows[0] if name != "share"]
    table = [[f"{100 * row['share']:g} %", *(f"{row[name]:g}" for name in names)] for row in rows]
    print_table(["training until within half a point", *names], table)
    return rows


def hypervolumes(tried: Iterable[Tried], worst: Tried) -> list[float]:
    """Return the area between the front and the ``worst`` latency and score, after each candidate that was tried."""
    found, areas = list[Tried](), list[float]()
    for each in tried:
        found = sorted([*found, each])
        latencies, scores = np.array(found).T
        widths = np.diff([*latencies, worst[0]])
        areas.append(float(widths @ (np.maximum.accumulate(scores) - worst[1])))
    return areas


def efficiency(replay: Replay, seeds: int, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Print and return the evaluations that each way to search takes, for each budget."""
    rows = []
    for share in budgets:
        limit_ms = replay.limit_ms(share)
        ways = {"random": None, "tpe": SAMPLERS["tpe"], "informed": replay.informed(limit_ms)}
        counts = {
            name: [evaluations(replay, limit_ms, way, seed) for seed in range(seeds)] for name, way in ways.items()
        }
        medians = {name: median(found) for name, found in counts.items()}
        rows.append({"share": share, "limit_ms": limit_ms, **medians, "counts": counts})
    table = [[f"{100 * row['share']:g} %", *(f"{row[name]:g}" for name in WAYS)] for row in rows]
    print_table(["candidates inside the budget", *WAYS], table)
    return rows


def fronts(replay: Replay, seeds: int, most: int) -> dict[str, list[float]]:
    """Print and return the mean hypervolume after each evaluation, as a share of that of all candidates; no budget."""
    every = [(latency_ms, accuracy) for accuracy, _, latency_ms, _ in replay.rows.values()]
    worst = max(latency for latency, _ in every), min(accuracy for _, accuracy in every)
    whole = hypervolumes([point for point in every if _on_front(point, every)], worst)[-1]
    limit_ms = replay.limit_ms(1.0)
    ways = {"nsga2": SAMPLERS["nsga2"], "tpe": SAMPLERS["tpe"], "informed": replay.informed(limit_ms)}
    found = {}
    for name, way in ways.items():
        areas = [hypervolumes(scores_of(replay, limit_ms, way, seed, most=most), worst) for seed in range(seeds)]
        found[name] = (np.mean(areas, axis=0) / whole).round(4).tolist()
    shown = [count for count in COUNTS if count <= most]
    table = [[name, *(f"{areas[count - 1]:.3f}" for count in shown)] for name, areas in found.items()]
    print_table(["share of the front after", *map(str, shown)], table)
    return found


def _on_front(point: Tried, every: Iterable[Tried]) -> bool:
    return not any(other[0] <= point[0] and other[1] >= point[1] and other != point for other in every)


def main() -> None:
    """Replay, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds, two budgets")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    replay, quick = Replay.load(), arguments.quick
    rows = efficiency(replay, 3 if quick else 50, BUDGETS[1:3] if quick else BUDGETS)
    areas = fronts(replay, 2 if quick else 10, 30 if quick else 100)
    totals = {name: sum(row[name] for row in rows) for name in WAYS}
    climbing = ladders(replay, 2 if quick else 20, BUDGETS[1:2] if quick else BUDGETS) if replay.untrained else []
    figures: dict[str, object] = {
        "evaluations_vs_random": round(totals["random"] / totals["informed"], 2),
        "evaluations_vs_tpe": round(totals["tpe"] / totals["informed"], 2),
        "evaluations": [{key: value for key, value in row.items() if key != "counts"} for row in rows],
        "hypervolume": {name: [found[at - 1] for at in COUNTS if at <= len(found)] for name, found in areas.items()},
        "above_nsga2": float(np.mean(np.array(areas["informed"]) > np.array(areas["nsga2"]))),
        "training": climbing,
        "latency_vs_best_sequential": kept("joint", "latency_vs_best_sequential"),
    }
    headline = ("evaluations_vs_random", "evaluations_vs_tpe", "latency_vs_best_sequential")
    finish("search", figures, quick=quick, details={"rows": rows, "hypervolume": areas}, headline=headline)


if __name__ == "__main__":
    main()
