"""How does a long search wear? ``python -m benchmarks.endurance [--quick] [--records FILE]``.

``trials``: 10,000 candidates in one study on a journal, with a score that costs nothing: processor time per candidate
and resident memory, a tenth of the study at a time. ``kills``: four worker processes of one search, of which a random
one is killed for good at a random moment, 200 times, each time followed by a new one; what comes of it is compared with
what one process finds alone. ``overhead``: what a search over MiniLM-L6 takes beside evaluations, and what share of the
wall time that is; what is measured before the first candidate, and finalists after the last, are not part of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from autocompress.plan import CompressionPlan
from autocompress.search.records import Record, records
from autocompress.search.storage import close, open_study
from autocompress.search.study import search
from benchmarks.kept import add_options, kept_of
from benchmarks.record import finish, print_table
from benchmarks.synthetic import formula, minilm

SEED, TENTHS = 0, 10
SAMPLERS = ("random", "tpe")
PARALLEL = 4
"""Candidates in work at once, as by default; so many workers are there while some are killed."""
EVALUATION_S = 0.05
"""Of a candidate while workers are killed: as short as writing it down, so that kills fall into both."""
MOST_BETWEEN_KILLS_S = 1.5
EVALUATIONS_S = (1.0, 10.0, 60.0)
"""The first is tried out. Candidates of a real run take 10 to 60 s."""
FORK = multiprocessing.get_context("fork")
"""Processes that begin with all modules loaded; each opens the study for itself."""


def in_process(work: Callable[[Path], Any]) -> Any:
    """Return what ``work`` returns in a process of its own, given a folder that is removed afterwards."""
    receiver, sender = FORK.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = FORK.Process(target=lambda: sender.send(work(Path(folder))))
        process.start()
        sender.close()
        try:
            return receiver.recv()
        finally:
            process.join()


def wear(sampler: str, trials: int, folder: Path) -> dict[str, Any]:
    """Return processor milliseconds per candidate and resident bytes, by tenths of a long study."""
    study, made, me = open_study(f"journal:{folder}/study.log", "run", resume=False), formula(), psutil.Process()
    busy_s, resident = [time.process_time()], [me.memory_info().rss]

    def on_record(record: Record) -> None:
        if (record.number + 1) % (trials // TENTHS) == 0:
            busy_s.append(time.process_time())
            resident.append(me.memory_info().rss)

    proposer = made.samplers[sampler]
    search(study, made.objective, trials=trials, seed=SEED, proposer=proposer, parallel=PARALLEL, on_record=on_record)
    taken_ms = [1e3 * (after - before) * TENTHS / trials for before, after in zip(busy_s, busy_s[1:], strict=False)]
    return {
        "candidates": trials,
        "processor_ms": [round(each, 2) for each in taken_ms],
        "resident_bytes": resident,
        # In the first tenth models of the results grow to their size.
        "last_over_second_tenth": round(taken_ms[-1] / taken_ms[1], 3),
        "bytes_per_candidate": round((resident[-1] - resident[1]) / (trials - trials // TENTHS)),
        "journal_bytes_per_candidate": round((folder / "study.log").stat().st_size / trials),
    }


class Crowd:
    """Worker processes of one search, each of which notes what it begins and what it sees finished.

    Args:
        folder: Of the journal and the notes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._stop, self._started = folder, folder / "stop", 0
        self.storage = f"journal:{folder}/study.log"
        close(open_study(self.storage, "run", resume=False))

    def start(self) -> Any:
        """Start a worker and return its process."""
        process = FORK.Process(target=self._work, args=(self._folder / f"{self._started}.jsonl",))
        self._started += 1
        process.start()
        return process

    def _work(self, log: Path) -> None:
        with log.open("a", buffering=1) as notes:

            def begins(plan: CompressionPlan) -> None:
                notes.write(json.dumps({"begins": plan.to_json()}) + "\n")
                time.sleep(EVALUATION_S)

            made = formula().with_each(begins)
            search(
                open_study(self.storage, "run", resume=True),
                made.objective,
                trials=10**6,
                seed=SEED,
                proposer=made.samplers["random"],
                parallel=PARALLEL,
                out_of_time=self._stop.exists,
                on_record=lambda record: notes.write(json.dumps({"finished": told(record)}) + "\n"),
            )

    def end(self) -> None:
        """Let workers end once they have done what they have in hand."""
        self._stop.touch()

    def noted(self, what: str) -> list[str]:
        """Return the notes of one kind, by whoever, as JSON; the last line of a killed worker may be cut off."""
        lines = [line for path in self._folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        notes = [json.loads(line) for line in lines if line.endswith("}")]
        return [json.dumps(note[what]) for note in notes if what in note]


def told(record: Record) -> list[object]:
    """Return what has to be the same whoever works on a search, but for the trial that brought it."""
    return [record.number, dict(record.params), record.state, record.score]


def kill(times: int, folder: Path) -> dict[str, Any]:
    """Return what is left of a search of which ``times`` workers were killed."""
    crowd, rng = Crowd(folder), random.Random(SEED)
    workers, since = [crowd.start() for _ in range(PARALLEL)], time.monotonic()
    for _ in range(times):
        time.sleep(rng.uniform(0.0, MOST_BETWEEN_KILLS_S))
        victim = rng.choice(workers)
        victim.kill()
        victim.join()
        workers[workers.index(victim)] = crowd.start()
    crowd.end()
    for worker in workers:
        worker.join()
    wall_s = time.monotonic() - since
    study = open_study(crowd.storage, "run", resume=True)
    found, trials = records(study), study.get_trials(deepcopy=False)
    alone, made = open_study(f"journal:{folder}/alone.log", "run", resume=False), formula()
    most = max(record.number for record in found) + 1
    proposer = made.samplers["random"]
    whole = search(alone, made.objective, trials=most, seed=SEED, proposer=proposer, parallel=PARALLEL)
    expected = {json.dumps(told(record)) for record in whole}
    held = {json.dumps(told(record)) for record in found}
    begun = Counter(crowd.noted("begins"))
    return {
        "kills": times,
        "wall_s": round(wall_s, 1),
        "workers_ended_by_themselves": sum(worker.exitcode == 0 for worker in workers),
        "candidates": len(found),
        "seen_finished_and_lost": len(set(crowd.noted("finished")) - held),
        "other_than_alone": len(held - expected),
        "finished_twice": sum(trial.state.name == "COMPLETE" for trial in trials) - len(found),
        "lost_in_hand": sum(trial.state.name == "FAIL" and "back" not in trial.user_attrs for trial in trials),
        "begun_again": sum(begun.values()) - len(begun),
    }


def outside(*, per_layer: bool, sampler: str, trials: int, seconds: float, folder: Path) -> dict[str, float]:
    """Return wall and processor seconds per candidate beside evaluations that take ``seconds``."""
    made = minilm(per_layer=per_layer).with_each(lambda plan: time.sleep(seconds))
    evaluated: list[float] = []
    study = open_study(f"journal:{folder}/study.log", "run", resume=False)
    wall_s, busy_s = time.perf_counter(), time.process_time()
    proposer = made.samplers[sampler]
    search(
        study,
        made.objective,
        trials=trials,
        seed=SEED,
        proposer=proposer,
        parallel=PARALLEL,
        on_record=lambda record: evaluated.append(record.seconds),
    )
    wall_s, busy_s = time.perf_counter() - wall_s, time.process_time() - busy_s
    return {
        "wall_s": (wall_s - sum(evaluated)) / trials,
        "processor_s": busy_s / trials,
        "share_of_wall": 1 - sum(evaluated) / wall_s,
    }


def trials_part(sampler: str, quick: bool) -> dict[str, Any]:
    """Print and return how a study wears."""
    trials = 400 if quick else 10_000
    found: dict[str, Any] = in_process(lambda folder: wear(sampler, trials, folder))
    tenths = zip(found["processor_ms"], found["resident_bytes"][1:], strict=True)
    table = [
        [f"{trials * at // TENTHS}", f"{ms:.1f}", f"{held / 2**20:.0f}"] for at, (ms, held) in enumerate(tenths, 1)
    ]
    print_table([f"candidates, {sampler}", "processor ms each", "resident MiB"], table)
    return found


def kills_part(quick: bool) -> dict[str, Any]:
    """Print and return what 200 kills left."""
    found = in_process(lambda folder: kill(15 if quick else 200, folder))
    print_table(["kill -9", ""], [[name.replace("_", " "), f"{value:g}"] for name, value in found.items()])
    return found


def overhead_part(quick: bool) -> dict[str, Any]:
    """Print and return what searches take beside evaluations."""
    rows: dict[str, Any] = {}
    for per_layer in (False, True):
        for sampler in ("tpe", "informed"):
            name = f"{'layers of their own' if per_layer else 'default space'}, {sampler}"
            how = {"per_layer": per_layer, "sampler": sampler, "trials": 6 if quick else 40}
            rows[name] = in_process(lambda folder, how=how: outside(**how, seconds=EVALUATIONS_S[0], folder=folder))
    table = []
    for name, row in rows.items():
        for seconds in EVALUATIONS_S[1:]:
            row[f"share_of_{seconds:g}_s"] = row["wall_s"] / (row["wall_s"] + seconds)
        shares = [row["share_of_wall"], *(row[f"share_of_{seconds:g}_s"] for seconds in EVALUATIONS_S[1:])]
        table.append(
            [
                name,
                f"{1e3 * row['wall_s']:.0f}",
                f"{1e3 * row['processor_s']:.0f}",
                *(f"{100 * share:.2f} %" for share in shares),
            ]
        )
        rows[name] = {key: round(value, 5) for key, value in row.items()}
    header = ["beside evaluations", "wall ms", "processor ms", *(f"of {seconds:g} s" for seconds in EVALUATIONS_S)]
    print_table(header, table)
    return rows


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    **{f"trials, {name}": partial(trials_part, name) for name in SAMPLERS},
    "kills": kills_part,
    "overhead": overhead_part,
}


@dataclass(frozen=True)
class Part:
    """What one part found."""

    name: str
    found: dict[str, Any]


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="400 trials, 15 kills, 6 candidates beside evaluations")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these, for --records")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, lambda line: Part(**line), lambda part: part.name)
    kept.made(arguments.parts, lambda name: Part(name, PARTS[name](arguments.quick)))
    figures = {part.name: part.found for part in kept.found(PARTS)}
    finish("endurance", figures, quick=arguments.quick or len(figures) < len(PARTS), details=figures)


if __name__ == "__main__":
    main()
