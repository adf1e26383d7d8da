"""What does it cost to keep a candidate? ``python -m benchmarks.storage [--quick]``.

The search itself, over MiniLM's shape on a board's data sheet, with a score that costs nothing: what is left is
drawing, foreseeing, and writing to the study.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from autocompress import load_profile
from autocompress.compression.method import Space
from autocompress.compression.methods import draw, reshape_plan
from autocompress.pipeline.candidates import choices
from autocompress.pipeline.known import roofline
from autocompress.pipeline.prediction import COMMON
from autocompress.plan import Chosen, CompressionPlan
from autocompress.search.objective import Objective, Scored
from autocompress.search.storage import open_study
from autocompress.search.study import search
from benchmarks.record import finish, print_table

TOKENS = 64
STORAGES = {"journal": "journal:{folder}/study.log", "sqlite": "sqlite:///{folder}/study.db"}


def objective() -> Objective:
    """Return a search without a limit whose score is a formula."""
    predictor = roofline(load_profile("raspberry-pi-4"), "onnxruntime", 1)
    space = Space(depth=tuple(range(2, len(COMMON.layers) + 1)))

    def score(plan: CompressionPlan) -> Scored:
        return Scored(1 - 1 / predictor.predict(reshape_plan(COMMON, plan), TOKENS).latency_p50_ms.value, 0.0)

    return Objective(
        choices=choices(space),
        draw=lambda params: draw(Chosen(params), COMMON, space),
        reshape=lambda plan: reshape_plan(COMMON, plan),
        predict=lambda shape: predictor.predict(shape, TOKENS),
        score=score,
        limits={},
    )


def time_search(storage: str, trials: int) -> tuple[float, float]:
    """Return the seconds of wall clock and of processor time that a search with a fresh study takes."""
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(STORAGES[storage].format(folder=Path(folder)), "benchmark", resume=False)
        wall_s, busy_s = time.perf_counter(), time.process_time()
        search(study, objective(), trials=trials, seed=0)
        return time.perf_counter() - wall_s, time.process_time() - busy_s


def main() -> None:
    """Time both storages in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 trials once instead of 45 trials three times")
    quick = parser.parse_args().quick
    trials, rounds = (15, 1) if quick else (45, 3)
    taken: dict[str, list[tuple[float, float]]] = {storage: [] for storage in STORAGES}
    for _ in range(rounds):
        for storage, times in taken.items():
            times.append(time_search(storage, trials))
    figures = {
        storage: {
            "wall_s": round(median(wall for wall, _ in times), 2),
            "processor_s": round(median(busy for _, busy in times), 2),
            "waited_ms_per_trial": round(median(1e3 * (wall - busy) / trials for wall, busy in times), 1),
        }
        for storage, times in taken.items()
    }
    print_table(
        [f"{trials} trials", "wall s", "processor s", "waited ms per trial"],
        [[storage, *(f"{value:g}" for value in row.values())] for storage, row in figures.items()],
    )
    finish("storage", {"trials": trials, **figures}, quick=quick, details={"wall_and_processor_s": taken})


if __name__ == "__main__":
    main()
