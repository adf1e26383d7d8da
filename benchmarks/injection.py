"""Slow a core down at known times, and see what the episode finder says of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import fmean, median
from time import perf_counter

from autocompress.profiling.drift import Reference, waiting_clock
from autocompress.profiling.episodes import WAITED, Conditions, Observation, find_episodes, marks

SAMPLE_S = 0.03
"""A sample runs its block for so long, so that it spans several time slices of the scheduler."""
ON, OFF = (3, 15), (8, 25)
"""Fewest and most samples for which the neighbour runs, and pauses."""
LOADS: dict[str, tuple[float, float]] = {"always busy": (1.0, 0.0), "busy 20 of 40 ms": (0.02, 0.02)}
"""Seconds for which a neighbour is busy and then idle, again and again, while it is on."""
WAYS: dict[str, Callable[[Observation], Observation]] = {
    "reference and waiting": lambda each: each,
    "reference": lambda each: replace(each, conditions=Conditions()),
    "latency": lambda each: replace(each, reference_ms=None, conditions=Conditions()),
}
"""What the finder is shown of a run."""
_BUSY = """
import sys, time
busy_s, idle_s = map(float, sys.argv[1:])
while True:
    end_s = time.perf_counter() + busy_s
    while time.perf_counter() < end_s:
        pass
    time.sleep(idle_s)
"""


class Neighbour:
    """A process that competes for the caller's cores whenever it is switched on; it starts switched off."""

    def __init__(self, busy_s: float, idle_s: float) -> None:
        self._command = [sys.executable, "-c", _BUSY, str(busy_s), str(idle_s)]

    def __enter__(self) -> Neighbour:
        self._process = subprocess.Popen(self._command)
        self.switch(on=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def switch(self, *, on: bool) -> None:
        """Let it run, or stop it; returns when it has happened."""
        self._process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WCONTINUED if on else os.WUNTRACED)


@dataclass(frozen=True)
class Injected:
    """A run with what was done to it: for each sample the load that was on, or ``None``."""

    run: tuple[Observation, ...]
    loads: tuple[str | None, ...]

    def episodes(self) -> Iterator[tuple[str, range]]:
        """Yield each injected episode with its load."""
        start = 0
        for end in range(1, len(self.loads) + 1):
            if end == len(self.loads) or self.loads[end] != self.loads[start]:
                if (load := self.loads[start]) is not None:
                    yield load, range(start, end)
                start = end


def inject(blocks: Mapping[str, Callable[[], object]], *, episodes: int, seed: int = 0) -> Injected:
    """Time blocks in turn on one core while neighbours on the same core are switched on and off.

    Args:
        blocks: What is timed, by name.
        episodes: How often a neighbour is switched on; the run begins and ends without one.
        seed: Of the times and loads.
    """
    loads = schedule(episodes, seed)
    reference, waited = Reference(), waiting_clock()
    taken: list[tuple[str, Observation]] = []
    with _on_one_core(), ExitStack() as stack:
        neighbours = {load: stack.enter_context(Neighbour(*times)) for load, times in LOADS.items()}
        for block in blocks.values():
            block()
        for before, load, name in zip((None, *loads), loads, cycle(blocks), strict=False):
            if load != before:
                neighbours[load or before or ""].switch(on=load is not None)
            taken.append((name, _sample(blocks[name], reference, waited)))
    usual = {block: median(each.latency_ms for name, each in taken if name == block) for block in blocks}
    return Injected(tuple(replace(each, expected_ms=usual[name]) for name, each in taken), loads)


def schedule(episodes: int, seed: int) -> tuple[str | None, ...]:
    """Return for each sample the load that is to be on: one of ``LOADS`` for ``ON`` samples, none for ``OFF``, ..."""
    draw = random.Random(seed)
    loads: list[str | None] = []
    for _ in range(episodes):
        loads += [None] * draw.randint(*OFF)
        loads += [draw.choice(list(LOADS))] * draw.randint(*ON)
    return (*loads, *[None] * draw.randint(*OFF))


@contextmanager
def _on_one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _sample(block: Callable[[], object], reference: Reference, waited: Callable[[], float]) -> Observation:
    waited_s, start_s = waited(), perf_counter()
    calls = 0
    while (now_s := perf_counter()) < start_s + SAMPLE_S:
        block()
        calls += 1
    before = len(reference.times_ms)
    reference()
    whole_s = perf_counter() - start_s
    return Observation(
        start_s=start_s,
        latency_ms=1e3 * (now_s - start_s) / calls,
        reference_ms=fmean(reference.times_ms[before:]),
        conditions=Conditions(waited_share=min((waited() - waited_s) / whole_s, 1.0)),
    )


def judge(injected: Injected, see: Callable[[Observation], Observation]) -> dict[str, object]:
    """Return how many injected episodes had half of their samples marked, and which share of other samples was.

    Clean are samples while no neighbour was on; calm are those of them that waited for no other process either.

    Args:
        injected: The run and its truth.
        see: What the finder is shown of a sample.
    """
    marked = marks(find_episodes([see(each) for each in injected.run]), len(injected.run))
    found = [(load, 2 * sum(marked[each] for each in samples) >= len(samples)) for load, samples in injected.episodes()]
    clean = [position for position, load in enumerate(injected.loads) if load is None]
    calm = [position for position in clean if (injected.run[position].conditions.waited_share or 0.0) <= WAITED]
    return {
        "episodes": len(found),
        "found": _share([hit for _, hit in found]),
        **{f"found, {name}": _share([hit for load, hit in found if load == name]) for name in LOADS},
        "clean": len(clean),
        "false": _share([marked[position] for position in clean]),
        "calm": len(calm),
        "false of calm": _share([marked[position] for position in calm]),
    }


def _share(hits: Sequence[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None
