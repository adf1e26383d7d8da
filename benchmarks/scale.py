"""How many workers does one study bear? ``python -m benchmarks.scale [--quick]``.

Simulated: a worker is a thread that does all that a worker does, but for an evaluation that only waits. They work on
one study in a PostgreSQL on loopback, each over connections of its own, or all behind Optuna's gRPC proxy. Told are
results per second, and the processor time that a result takes of the workers, the database and the proxy: as all of
them share the processors of one machine, that is what says where they would saturate on several. Beside that, what a
fleet of device profiles costs: bytes, seconds to fit, and milliseconds to foresee a candidate for one of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import optuna
import psutil

from autocompress.pipeline.prediction import COMMON
from autocompress.predictors.fit import fit
from autocompress.predictors.sampling import sample_shapes
from autocompress.predictors.store import load
from autocompress.search.address import with_driver
from autocompress.search.places import Ledger
from autocompress.search.storage import close, open_study
from autocompress.search.study import search
from benchmarks.postgresql import Server, free_port, programs, running
from benchmarks.record import finish, print_table
from benchmarks.synthetic import PREDICTOR, TOKENS, formula

COUNTS = (1, 4, 16, 64, 200)
WAYS = ("postgresql", "grpc")
EVALUATION_S = 5.0
"""Of a candidate; a real one takes 10 to 60 s, so that a worker here asks as often as two to twelve real ones."""
WARM_UP_S, WINDOW_S = 60.0, 25.0
"""At most until all workers are at it, and how long is counted then."""
CONNECTIONS = 700
"""That the database takes: of 200 workers each has one or two. PostgreSQL's own limit is 100."""
FORESEEN = 500
FORK = multiprocessing.get_context("fork")
PROXY = (
    "import sys, optuna\n"
    "storage = optuna.storages.get_storage(sys.argv[1])\n"
    "optuna.storages.run_grpc_proxy_server(storage, host='127.0.0.1', port=int(sys.argv[2]))"
)


@dataclass(frozen=True)
class Borne:
    """What so many workers did, and what it took.

    Attributes:
        way: How they reached the database.
        workers: That were asked for.
        at_work: That had a candidate in hand when counting began.
        per_second: Results, in the mean.
        of_ideal: Share of the results that they would bring if they did nothing but evaluate.
        workers_ms, database_ms, proxy_ms: Processor milliseconds for each result.
        connections: That the database had open.
        attempts: Trials for each result: more than one where several took a place up at the same time.
    """

    way: str
    workers: int
    at_work: int
    per_second: float
    of_ideal: float
    workers_ms: float
    database_ms: float
    proxy_ms: float
    connections: int
    attempts: float


@dataclass(frozen=True)
class Load:
    """What is put on a database.

    Attributes:
        way: How workers reach it.
        workers: How many.
        seconds: That an evaluation takes.
        window_s: That is counted.
    """

    way: str
    workers: int
    seconds: float = EVALUATION_S
    window_s: float = WINDOW_S


def bear(server: Server, load: Load) -> Borne:
    """Let workers work on a new study, and tell of it."""
    database = optuna.storages.RDBStorage(with_driver(server.url))
    if "run" in optuna.get_all_study_names(database):
        optuna.delete_study(study_name="run", storage=database)
    database.remove_session()
    database.engine.dispose()
    study = open_study(server.url, "run", resume=False)
    _search(study, seconds=0.0, trials=1, parallel=load.workers)
    ledger = Ledger(study)
    with _reached(server, load.way) as (storage, proxies), _at_work(storage, load) as workers:
        deadline = time.monotonic() + WARM_UP_S + load.seconds
        while time.monotonic() < deadline and ledger.in_work() < load.workers:
            time.sleep(1.0)
            ledger.refresh()
        at_work, before = ledger.in_work(), [_busy_s(each) for each in (workers, [server.pid], proxies)]
        done, tried, since = _counted(ledger)
        time.sleep(load.window_s)
        after = [_busy_s(each) for each in (workers, [server.pid], proxies)]
        connections = len(psutil.Process(server.pid).children())
        ledger.refresh()
        results, trials, wall_s = (now - then for now, then in zip(_counted(ledger), (done, tried, since), strict=True))
    close(study)
    each_ms = [
        1e3 * sum(busy - was.get(pid, 0.0) for pid, busy in now.items()) for was, now in zip(before, after, strict=True)
    ]
    workers_ms, database_ms, proxy_ms = (ms / max(1, results) for ms in each_ms)
    rate = results / wall_s
    return Borne(
        load.way,
        load.workers,
        at_work,
        rate,
        rate * load.seconds / load.workers,
        workers_ms,
        database_ms,
        proxy_ms,
        connections,
        trials / max(1, results),
    )


def _counted(ledger: Ledger) -> tuple[int, int, float]:
    """Return how many results and trials there are, and when that is."""
    return sum(1 for _ in ledger.results()), len(ledger.study.get_trials(deepcopy=False)), time.monotonic()


def _search(study: optuna.Study, *, seconds: float, trials: int, parallel: int) -> None:
    made = formula().with_each(lambda plan: time.sleep(seconds))
    search(study, made.objective, trials=trials, seed=0, proposer=made.samplers["random"], parallel=parallel)


@contextmanager
def _reached(server: Server, way: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the storage of workers, and the processes that stand between them and the database."""
    if way == "postgresql":
        yield server.url, []
        return
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-c", PROXY, with_driver(server.url), str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield f"grpc://127.0.0.1:{port}", [process.pid]
    finally:
        process.kill()
        process.wait()


@contextmanager
def _at_work(storage: str, load: Load) -> Iterator[list[int]]:
    """Yield the processes of the workers, a processor one, as threads share one processor."""
    count = min(load.workers, psutil.cpu_count() or 1)
    shares = [len(range(index, load.workers, count)) for index in range(count)]
    processes = [FORK.Process(target=_be_workers, args=(storage, load, share)) for share in shares]
    for process in processes:
        process.start()
    try:
        yield [process.pid for process in processes if process.pid is not None]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _be_workers(storage: str, load: Load, count: int) -> None:
    def work() -> None:
        study = open_study(storage, "run", resume=True)
        _search(study, seconds=load.seconds, trials=10**6, parallel=load.workers)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _busy_s(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor seconds of processes, and of those that they started, by process."""
    found = {}
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children()):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def foresee() -> dict[str, float]:
    """Return what the predictor of one device takes on the disk, to be fitted, and to be asked."""
    kept = load(PREDICTOR)
    since = time.process_time()
    about = {"device": kept.device, "engine": kept.engine, "threads": kept.threads, "provenance": kept.provenance}
    fit(kept.samples, **about)
    fitted_s, since = time.process_time() - since, time.process_time()
    shapes = sample_shapes(COMMON, FORESEEN, seed=0)
    since = time.process_time()
    kept.predict_many(shapes, TOKENS)
    return {
        "samples": len(kept.samples),
        "bytes": PREDICTOR.stat().st_size,
        "fit_s": round(fitted_s, 2),
        "foresee_ms_per_candidate": round(1e3 * (time.process_time() - since) / FORESEEN, 3),
    }


def main() -> None:
    """Measure each number of workers in both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1, 4 and 16 workers, 10 s each")
    quick = parser.parse_args().quick
    folder = programs()
    if folder is None:
        parser.error("PostgreSQL's initdb is not installed (apt install postgresql)")
    counts, window_s = ((1, 4, 16), 10.0) if quick else (COUNTS, WINDOW_S)
    with running(folder, connections=CONNECTIONS, durable=True) as server:
        rows = [bear(server, Load(way, count, window_s=window_s)) for way in WAYS for count in counts]
    print_table(
        [
            "",
            "workers",
            "at work",
            "results/s",
            "of ideal",
            "ms: workers",
            "database",
            "proxy",
            "connections",
            "attempts",
        ],
        [
            [
                row.way,
                f"{row.workers}",
                f"{row.at_work}",
                f"{row.per_second:.2f}",
                f"{100 * row.of_ideal:.0f} %",
                *(f"{ms:.0f}" for ms in (row.workers_ms, row.database_ms, row.proxy_ms)),
                f"{row.connections}",
                f"{row.attempts:.2f}",
            ]
            for row in rows
        ],
    )
    device = foresee()
    print_table(["one device", ""], [[name.replace("_", " "), f"{value:g}"] for name, value in device.items()])
    figures = {
        f"{row.way}, {row.workers}": {
            name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(row).items()
        }
        for row in rows
    }
    finish("scale", {"evaluation_s": EVALUATION_S, **figures, "device": device}, quick=quick, details=figures)


if __name__ == "__main__":
    main()
