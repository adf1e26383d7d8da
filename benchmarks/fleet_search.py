"""What does it cost to search for several devices at once? ``python -m benchmarks.fleet_search [--quick]``.

Searches are replayed on the table of ``benchmarks.search``, for the machine that it was measured on and for a Raspberry
Pi 4 as its data sheet has it, of whose shapes another part is cheap. Counted are scored candidates until each device,
and both together, have one within half a point of the best that fits. One search for all is compared with one after
the other for each, of which each knows nothing of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna

from autocompress.compression.drawing import Drawing
from autocompress.devices.load import load_profile
from autocompress.pipeline.guidance import Guidance, proposer_of, solutions, warm_start
from autocompress.pipeline.known import roofline
from autocompress.predictors.predictor import Predictor
from autocompress.search.objective import Deployment
from autocompress.search.proposing import DIRECTIONS, SAMPLERS, Proposer
from autocompress.search.records import Record
from autocompress.search.study import search
from benchmarks.record import finish, print_table
from benchmarks.search import MOST, WARM, WITHIN, Replay

BOARD = "raspberry-pi-4"
SHARES = ((0.1, 0.1), (0.05, 0.2), (0.2, 0.05), (0.02, 0.5), (0.5, 0.02))
"""Of the candidates, how many are inside the budget of the machine and of the board."""
TOKENS = 64


@dataclass(frozen=True)
class Fleet:
    """Devices with their predictors and limits of latency, by name."""

    replay: Replay
    predictors: Mapping[str, Predictor]
    limits_ms: Mapping[str, float]

    @classmethod
    def of(cls, replay: Replay, shares: Sequence[float]) -> Fleet:
        """Return both devices with limits inside of which are such shares of the candidates."""
        board = roofline(load_profile(BOARD), "onnxruntime", 1)
        predictors = {"host": replay, BOARD: board}
        found = cls(replay, predictors, {})
        limits = {
            name: float(np.quantile(list(found.held_ms(name).values()), share))
            for name, share in zip(predictors, shares, strict=True)
        }
        return replace(found, limits_ms=limits)

    def only(self, name: str) -> Fleet:
        """Return one of the devices."""
        return Fleet(self.replay, {name: self.predictors[name]}, {name: self.limits_ms[name]})

    def held_ms(self, name: str) -> dict[Any, float]:
        """Return what is held against the limit of a device, by shape."""
        shapes = list(self.replay.rows)
        held = self.predictors[name].predict_many(shapes, TOKENS).held()["latency_p50_ms"]
        return dict(zip(shapes, held.tolist(), strict=True))

    def enough(self) -> dict[str, float]:
        """Return the score that is good enough on each device, and for all, by name."""
        fits = {
            name: {s for s, ms in self.held_ms(name).items() if ms <= limit} for name, limit in self.limits_ms.items()
        }
        if len(fits) > 1:
            fits["all"] = set.intersection(*fits.values())
        return {name: max(self.replay.rows[shape][0] for shape in shapes) - WITHIN for name, shapes in fits.items()}

    def setting(self) -> Any:
        """Return what the pipeline knows of a run with these devices."""
        config = SimpleNamespace(
            search=SimpleNamespace(sampler="informed", warm_start=WARM), task=SimpleNamespace(max_tokens=TOKENS)
        )
        seen = {
            name: SimpleNamespace(
                config=config,
                predictor=predictor,
                feasibility=SimpleNamespace(limits={"latency_p50_ms": self.limits_ms[name]}),
            )
            for name, predictor in self.predictors.items()
        }
        return SimpleNamespace(config=config, everywhere=seen)


def evaluations(fleet: Fleet, wanted: Mapping[str, float], sampler: str, seed: int) -> dict[str, int]:
    """Return after how many scores each of ``wanted`` is reached, at most ``MOST`` + 1."""
    replay, reached, scored = fleet.replay, dict[str, int](), 0
    setting, drawing = fleet.setting(), Drawing(replay.shape, replay.space)
    proposer: Proposer = SAMPLERS.get(sampler, SAMPLERS["random"])
    anchors: Sequence[Mapping[str, object]] = ()
    if sampler == "informed":
        known = Guidance(
            replay.sensitivities.nats, solutions(setting, replay.shape, replay.space, replay.sensitivities)
        )
        proposer, anchors = proposer_of(setting, drawing, known), warm_start(setting, known)

    def on_record(record: Record) -> None:
        nonlocal scored
        if record.score is None:
            return
        scored += 1
        fits = {name for name in fleet.predictors if record.on(name).inside}
        for name in (*fits, *(["all"] if record.inside else [])):
            if record.score >= wanted.get(name, np.inf):
                reached.setdefault(name, scored)

    devices = {
        name: Deployment(partial(predictor.predict, tokens=TOKENS), {"latency_p50_ms": fleet.limits_ms[name]})
        for name, predictor in fleet.predictors.items()
    }
    first = next(iter(devices.values()))
    asked = replace(replay.objective(0.0), predict=first.predict, limits=first.limits)
    search(
        optuna.create_study(directions=DIRECTIONS),
        replace(asked, fleet=devices) if len(devices) > 1 else asked,
        trials=MOST,
        seed=seed,
        proposer=proposer,
        parallel=1,
        anchors=anchors,
        out_of_time=lambda: wanted.keys() <= reached.keys(),
        on_record=on_record,
    )
    return {name: reached.get(name, MOST + 1) for name in wanted}


def compared(fleet: Fleet, sampler: str, seeds: Iterable[int]) -> dict[str, Any]:
    """Return medians: until each is found, until all are, and what two searches take that look for no common one."""
    wanted = fleet.enough()
    together, alone = [], []
    for seed in seeds:
        together.append(evaluations(fleet, wanted, sampler, seed))
        each = [evaluations(fleet.only(name), {name: wanted[name]}, sampler, seed) for name in fleet.predictors]
        alone.append(sum(sum(found.values()) for found in each))
    medians = {name: median(found[name] for found in together) for name in wanted}
    everything = median(max(found.values()) for found in together)
    return {"sampler": sampler, **medians, "everything": everything, "alone": median(alone)}


def main() -> None:
    """Replay, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds, one pair of budgets, no TPE")
    quick = parser.parse_args().quick
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    replay, rows = Replay.load(), []
    for shares in SHARES[:1] if quick else SHARES:
        fleet, seeds = Fleet.of(replay, shares), range(2 if quick else 5)
        samplers = ("informed",) if quick else ("tpe", "informed")
        rows += [compared(fleet, sampler, seeds) | {"shares": shares} for sampler in samplers]
    table = [
        [
            " and ".join(f"{100 * share:g} %" for share in row["shares"]),
            row["sampler"],
            *(f"{row[name]:g}" for name in ("host", BOARD, "all", "everything", "alone")),
        ]
        for row in rows
    ]
    print_table(
        ["inside the budgets", "sampler", "host", BOARD, "both", "all three", "two searches, without both"], table
    )
    finish("fleet_search", {"evaluations": rows}, quick=quick, details={"rows": rows})


if __name__ == "__main__":
    main()
