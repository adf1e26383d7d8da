"""The loop of every worker: take a place up, score what stands there, write the result down; or wait for others.

A killed process loses at most the candidate in hand, which whoever is next takes up again at the same place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

import numpy as np
import optuna
from optuna.trial import TrialState

from autocompress.search import notes
from autocompress.search.attempts import TakenOverError
from autocompress.search.objective import Candidate, Objective, Params
from autocompress.search.places import LOST_LIMIT, Ledger
from autocompress.search.proposing import SAMPLERS, Proposer, distributions
from autocompress.search.records import Record, record_of, records
from autocompress.search.scoring import fail, reached, score
from autocompress.search.sequence import CandidateSequence, Rules
from autocompress.search.workers import Watch, Worker, working

PLACES_PER_TRIAL = 10
"""A search ends after so many candidates for each that was to be scored: the others failed, each for its own reason."""
ANCHORS = "anchors"
"""The note of a study that holds the choices to try first; where it is there, the search has begun."""
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.02, 1.0
TELL_EVERY = 30
"""Looks at the study between two words that it is waited."""


def search(
    study: optuna.Study,
    objective: Objective,
    *,
    trials: int,
    seed: int,
    proposer: Proposer = SAMPLERS["tpe"],
    parallel: int = 4,
    anchors: Sequence[Params] | None = (),
    out_of_time: Callable[[], bool] = lambda: False,
    on_record: Callable[[Record], None] = lambda record: None,
    on_wait: Callable[[int], None] = lambda in_work: None,
    on_exhausted: Callable[[], None] = lambda: None,
) -> list[Record]:
    """Work until ``trials`` different candidates are scored, by whoever, and return all records.

    Args:
        study: From ``storage.open_study``.
        objective: How a candidate is drawn, foreseen and scored.
        trials: Candidates to score in the whole study.
        seed: Of every choice.
        proposer: Says what to try; one of ``proposing.SAMPLERS``, or another.
        parallel: Most candidates in work at once, by all workers together; see ``sequence``.
        anchors: Choices to try first, by name: the obvious ones, which are kept even if they are over budget. The study
            keeps those that it began with, which count from then on; ``None`` where it is known to have them.
        out_of_time: Asked before each candidate; then what others have in work is waited for, and nothing is begun.
        on_record: Told of each candidate that gets a result from now on, whoever brings it.
        on_wait: Told how many candidates others have in work when there is nothing to do but to wait for them.
        on_exhausted: Told where the search ends because nothing new inside the budget is left to try.
    """
    ledger = Ledger(study, Watch())
    ledger.refresh()
    ledger.news()  # What was found before is no news.
    first = _anchors(study, anchors)
    sequence = CandidateSequence(objective, Rules(seed, parallel, proposer, first), ledger)
    last = len(first) + trials * PLACES_PER_TRIAL
    rng = np.random.default_rng()  # Of who gets which place, which changes no candidate.
    stopped, beaten, waits = False, False, count()
    with working() as worker:
        while True:
            ledger.refresh()
            for new in ledger.news():
                on_record(record_of(new, ledger.trial(new)))
            free = [] if stopped else [place for place in ledger.free(trials, parallel) if place < last]
            place = None if not free else int(rng.choice(free)) if beaten else free[0]
            found = None if place is None else sequence.at(place)
            if (
                beaten and found is None
            ):  # Nothing is left to try that far on; of the first free place that is not known.
                beaten = False
                continue
            if place is not None and found is not None and not (stopped := out_of_time()):
                beaten, waits = not _work(ledger, place, found, objective, worker, parallel=parallel), count()
            elif in_work := ledger.in_work():
                turn = next(waits)
                if turn % TELL_EVERY == 0:
                    on_wait(in_work)
                time.sleep(min(SHORTEST_WAIT_S * 2 ** min(turn, 9), LONGEST_WAIT_S))
                beaten = False
            else:
                break
    if sequence.exhausted_at is not None:
        on_exhausted()
    return records(study)


def _anchors(study: optuna.Study, given: Sequence[Params] | None) -> list[Params]:
    kept = notes.read(study, ANCHORS)
    if given is not None and (kept is None or not study.get_trials(deepcopy=False)):
        notes.write(study, ANCHORS, kept := [dict(params) for params in given])
    assert kept is not None
    return list(kept)


def _work(
    ledger: Ledger,
    place: int,
    found: tuple[Params, Candidate],
    objective: Objective,
    worker: Worker,
    *,
    parallel: int,
) -> bool:
    """Bring a result to ``place``, and return whether it was left to this worker."""
    params, candidate = found
    about = {
        "params": params,
        "distributions": distributions({name: objective.choices[name] for name in params}),
        "constraints": candidate.violations,
        "candidate": {
            "plan": candidate.plan.to_json(),
            "cost": candidate.cost.to_dict(),
            "label": candidate.shape.describe(),
        },
    }
    attempt = ledger.take(place, worker, **about)
    if attempt is None:
        return False
    try:
        lost = ledger.lost(place)
        if lost >= LOST_LIMIT:
            fail(attempt, f"its worker was lost {lost} times")
        elif not candidate.inside:
            attempt.finish(TrialState.PRUNED)
        else:
            score(attempt, candidate, objective, partial(reached, ledger, place - parallel))
    except TakenOverError:
        pass
    except BaseException:
        with suppress(Exception):  # A disk that is full is: the first error says it.
            attempt.give_back()
        raise
    if attempt.was_away:
        ledger.listen_anew()
    return True
