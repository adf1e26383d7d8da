"""The loop: ask, foresee, constrain, score, tell. A killed process loses at most the candidate in hand.

The sequence of candidates is a function of the seed, the space, the predictor and the scores alone: each proposal's
sampler is seeded with (seed, place in the sequence), so that stopping and resuming changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from autocompress.errors import AutoCompressError, StorageError
from autocompress.plan import Suggest
from autocompress.search.objective import Candidate, Objective, Scored, foresee, violations
from autocompress.search.records import Record, plan_key, records

PROPOSALS_PER_TRIAL = 40
"""Proposals over budget or seen before are free, up to this many for each candidate that may be scored."""
STARTUP = 8
"""Candidates before the sampler models the outcomes."""


def search(
    study: optuna.Study,
    objective: Objective,
    *,
    trials: int,
    seed: int,
    anchors: Sequence[Mapping[str, object]] = (),
    out_of_time: Callable[[], bool] = lambda: False,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Score up to ``trials`` different candidates and return all records, earlier ones included.

    Args:
        study: From ``storage.open_study``.
        objective: How a candidate is drawn, foreseen and scored.
        trials: Candidates to score in the whole study.
        seed: Of the sampler.
        anchors: Choices to try first, by parameter name: the obvious baselines.
        out_of_time: Asked before each candidate.
        on_record: Told of each candidate.
    """
    _retire_interrupted(study)
    done = records(study)
    while not out_of_time():
        scores = {record.key: scored for record in done if (scored := record.scored) is not None}
        if len(scores) >= trials or len(done) >= trials * PROPOSALS_PER_TRIAL + len(anchors):
            break
        trial = _ask(study, len(done), seed, anchors)
        _evaluate(study, trial, objective, scores)
        done = records(study)
        on_record(done[-1])
    return done


def _ask(study: optuna.Study, place: int, seed: int, anchors: Sequence[Mapping[str, object]]) -> Trial:
    sampler_seed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=STARTUP)
    if place < len(anchors) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(anchors[place]))
    return study.ask()


def _evaluate(study: optuna.Study, trial: Trial, objective: Objective, scores: Mapping[str, Scored]) -> None:
    candidate = foresee(objective.draw(cast(Suggest, trial)), objective)
    _note(trial, candidate)
    excess = violations(candidate.cost, objective.limits)
    for name, share in excess.items():
        trial.set_constraint(name, share)
    if any(share > 0 for share in excess.values()):
        study.tell(trial, state=TrialState.PRUNED)
        return
    started = time.perf_counter()
    try:
        known = scores.get(plan_key(candidate.plan.to_json()))
        score = objective.score(candidate.plan) if known is None else known
        if not np.isfinite(score.value):
            raise FloatingPointError(f"the score is {score.value}")
    except StorageError:
        raise
    except (AutoCompressError, RuntimeError, MemoryError, ArithmeticError, ValueError) as error:
        # A candidate that cannot be trained is a result, with its reason; the search goes on.
        trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr("seconds", time.perf_counter() - started)
    trial.set_user_attr("standard_error", score.standard_error)
    study.tell(trial, (score.value, candidate.cost.latency_p50_ms.value))


def _note(trial: Trial, candidate: Candidate) -> None:
    foreseen: dict[str, Any] = {
        "plan": candidate.plan.to_json(),
        "cost": candidate.cost.to_dict(),
        "label": candidate.shape.describe(),
    }
    trial.set_user_attr("candidate", foreseen)


def _retire_interrupted(study: optuna.Study) -> None:
    """Close the trials that a killed process left open; they are proposed again, at the same place."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage: Any = study._storage
        storage.set_trial_user_attr(trial._trial_id, "interrupted", True)
        study.tell(trial.number, state=TrialState.FAIL)
