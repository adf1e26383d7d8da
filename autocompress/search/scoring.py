"""A candidate in the hands of this worker: scored, rung by rung, and the result written down, whatever it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple

import numpy as np
from optuna.trial import TrialState

from autocompress.errors import AutoCompressError, DeviceError, StorageError
from autocompress.search.attempts import Attempt
from autocompress.search.ladder import MOST, Rung, climbs
from autocompress.search.objective import Candidate, Objective, Scored
from autocompress.search.places import RUNGS, Ledger, latency_of, rungs_of


def score(
    attempt: Attempt, candidate: Candidate, objective: Objective, reached: Callable[[int], Sequence[Rung]]
) -> None:
    """Score a candidate on one rung of the ladder after the other, as far as it climbs.

    Args:
        attempt: At its place.
        candidate: Inside the budget.
        objective: Says how it is scored.
        reached: Says who reached a rung, of whom may be known.

    Raises:
        TakenOverError: Others hold the place now.
    """
    started = time.perf_counter()
    rungs: list[Scored] = []
    try:
        with attempt.beating():
            top = _climb(candidate, objective, reached, rungs)
    except (StorageError, DeviceError):  # A full disk or a lost board ends this worker, and is no candidate's fault.
        raise
    except (AutoCompressError, RuntimeError, MemoryError, ArithmeticError, ValueError) as error:
        # A candidate that cannot be trained is a result, with its reason; the search goes on.
        fail(attempt, f"{type(error).__name__}: {error}", rungs)
        return
    attempt.note(seconds=time.perf_counter() - started, **_noted(rungs))
    if top is None:
        attempt.finish(TrialState.PRUNED)
    else:
        attempt.note(standard_error=top.standard_error)
        attempt.finish(TrialState.COMPLETE, (top.value, candidate.cost.latency_p50_ms.value))


def fail(attempt: Attempt, reason: str, rungs: Sequence[Scored] = ()) -> None:
    """Write down why a candidate failed, and its scores up to there."""
    attempt.note(reason=reason, **_noted(rungs))
    attempt.finish(TrialState.FAIL)


def reached(ledger: Ledger, last: int, rung: int) -> list[Rung]:
    """Return who reached a rung at places up to ``last``, the newest of them."""
    found: list[Rung] = []
    for place in range(last, -1, -1):
        trial = ledger.trial(place)
        scores = rungs_of(trial)
        if rung < len(scores):
            found.append(Rung(scores[rung], latency_of(trial)))
        if len(found) == MOST:
            break
    return found


def _climb(
    candidate: Candidate, objective: Objective, reached: Callable[[int], Sequence[Rung]], rungs: list[Scored]
) -> Scored | None:
    """Add scores on rungs to ``rungs``, and return that of the top, or ``None`` where the candidate is stopped."""
    for rung, score in enumerate(objective.rungs):
        rungs.append(_finite(score(candidate.plan)))
        if not climbs(Rung(rungs[-1], candidate.cost.latency_p50_ms.value), reached(rung)):
            return None
    return _finite(objective.score(candidate.plan))


def _finite(score: Scored) -> Scored:
    if not np.isfinite(score.value):
        raise FloatingPointError(f"the score is {score.value}")
    return score


def _noted(rungs: Sequence[Scored]) -> dict[str, object]:
    return {RUNGS: [astuple(scored) for scored in rungs]} if rungs else {}
