"""Several real processes that search one study, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from autocompress.search.places import Ledger
from autocompress.search.records import Record, records
from autocompress.search.storage import close, open_study
from tests.search.synthetic import ANCHORS, glance, objective, search

ROOT = Path(__file__).parents[2]


class Crowd:
    """Processes that search the study ``run`` of one storage, each with a log of what it does."""

    def __init__(self, storage: str, folder: Path, *, trials: int, parallel: int, seconds: float = 0.05) -> None:
        self.storage, self.folder, self.processes = storage, folder, []
        self._arguments = [str(trials), str(parallel), str(seconds)]
        folder.mkdir(parents=True, exist_ok=True)
        close(open_study(storage, "run", resume=False))

    def start(self) -> subprocess.Popen:
        """Start another one."""
        log = self.folder / f"{len(self.processes)}.log"
        command = [sys.executable, "-m", "tests.search.synthetic", self.storage, str(log), "resume", *self._arguments]
        self.processes.append(subprocess.Popen(command, cwd=ROOT))
        return self.processes[-1]

    def lines(self, process: subprocess.Popen) -> list[str]:
        """Return what a process noted, line by line."""
        log = self.folder / f"{self.processes.index(process)}.log"
        return log.read_text().splitlines() if log.exists() else []

    def wait_for_work(self, process: subprocess.Popen, *, after: int) -> None:
        """Wait until a process scores its candidate number ``after``, counted from 1."""
        deadline = time.monotonic() + 300
        while sum(line.startswith("begins") for line in self.lines(process)) < after:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)

    def kill_at_work(self, process: subprocess.Popen, *, after: int) -> None:
        """Kill a process for good while it scores its candidate number ``after``."""
        self.wait_for_work(process, after=after)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def finish(self) -> list[Record]:
        """Wait for those that still run, and return what was found."""
        for process in self.processes:
            assert process.wait(300) in (0, -signal.SIGKILL)
        with self.study() as study:
            return records(study)

    @contextmanager
    def study(self):
        """Yield the study, to be read."""
        study = open_study(self.storage, "run", resume=True)
        yield study
        close(study)

    def check_nothing_was_done_twice(self) -> None:
        """Each place has one result, and only what a killed process was at was begun again."""
        with self.study() as study:
            ledger = Ledger(study)
            ledger.refresh()
        assert ledger.in_work() == 0
        places = [place for place, _ in ledger.results()]
        assert places == list(range(len(places)))
        begun = Counter(line for process in self.processes for line in self.lines(process) if line.startswith("begins"))
        killed = sum(process.returncode != 0 for process in self.processes)
        assert sum(begun.values()) - len(begun) <= killed


def alone(storage: str, *, trials: int, parallel: int) -> list[Record]:
    """Return what one process finds in a study of its own."""
    study = open_study(storage, "run", resume=False)
    return search(study, objective(rungs=(glance,)), trials=trials, seed=7, parallel=parallel, anchors=ANCHORS)


def same(found: list[Record], others: list[Record]) -> bool:
    """Whether two searches found the same: the same choices and scores in the same order."""
    return [(r.number, r.params, r.state, r.score) for r in found] == [
        (r.number, r.params, r.state, r.score) for r in others
    ]
