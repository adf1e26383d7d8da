"""What might be worth a try: proposers, which know results and propose choices.

A proposer is a pure function: the same knowledge and seed give the same proposals, in every process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from autocompress.search.objective import Choices, Params

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
"""Of the two objectives: the metric, and the predicted median latency."""
STARTUP = 8
"""Results before a sampler models them."""
POPULATION = 32
"""Parents that NSGA-II chooses among all results."""
LATE_ATTEMPTS = 8
"""Proposals for one place of a sampler that no longer sees all results: many were tried before, and it cannot know."""


@dataclass(frozen=True)
class Result:
    """What came of a candidate.

    Attributes:
        params: What was chosen.
        score: The metric, 0 to 1.
        latency_ms: Foreseen, median.
        standard_error: Of the score.
        rung: Where it was stopped, and scored; ``None`` at the top.
    """

    params: Params
    score: float
    latency_ms: float
    standard_error: float = 0.0
    rung: int | None = None


@dataclass(frozen=True)
class Known:
    """What may be known at a place of the sequence.

    Attributes:
        results: In the order of their places.
        pending: What was chosen at earlier places of which no result may be known.
    """

    results: Sequence[Result]
    pending: Sequence[Params]


class Proposer(Protocol):
    """A way to propose."""

    @property
    def most(self) -> int:
        """Results that it looks at; of more it is shown the best and the newest."""

    @property
    def attempts(self) -> int:
        """Proposals for one place that are worth their time."""

    def propose(self, choices: Choices, known: Known, seed: Sequence[int]) -> Iterator[Params]:
        """Yield proposals for one place, without end; the sequence takes the first that is new and inside the budget.

        Args:
            choices: What there is to choose from, at least two of each name.
            known: What may be known.
            seed: Of the search, and the place.
        """


@dataclass(frozen=True)
class OptunaProposer:
    """Asks a sampler of Optuna's, with a study in memory that holds what may be known and nothing else.

    Attributes:
        make: Makes the sampler of a seed.
        most: See ``Proposer``.
        attempts: See ``Proposer``.
    """

    make: Callable[[int], BaseSampler]
    most: int
    attempts: int = 24

    def propose(self, choices: Choices, known: Known, seed: Sequence[int]) -> Iterator[Params]:
        """Yield what the sampler says, again and again; TPE and GP keep away from what they said before.

        It ends after ``LATE_ATTEMPTS`` where there are more results than the sampler sees.
        """
        space = {name: _Constant(distribution.choices) for name, distribution in distributions(choices).items()}
        study = _study(space, known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = self.make(derived(*seed))
        late = 0 < self.most <= len(known.results)
        for _ in range(LATE_ATTEMPTS) if late else count():
            yield study.ask(dict(space)).params


class _Constant(CategoricalDistribution):
    """One that is not copied, and is equal to itself without a look at its choices.

    Optuna copies and compares the distributions of all trials of a study, which takes several times as long as
    everything else that it does to propose.
    """

    def __deepcopy__(self, memo: object) -> _Constant:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__


def _study(space: Mapping[str, BaseDistribution], known: Known) -> optuna.Study:
    study = optuna.create_study(directions=DIRECTIONS, sampler=RandomSampler(seed=0))
    # To NSGA-II all results are one generation, of which the next chooses its parents.
    generation = {NSGAIISampler._get_generation_key(): 0}
    for result in known.results:
        values = [result.score, result.latency_ms]
        chosen = dict(result.params)
        study.add_trial(create_trial(values=values, params=chosen, distributions=dict(space), system_attrs=generation))
    for chosen in map(dict, known.pending):  # TPE and GP keep away from these, too.
        study.add_trial(create_trial(state=TrialState.RUNNING, params=chosen, distributions=dict(space)))
    return study


def distributions(choices: Choices) -> dict[str, CategoricalDistribution]:
    """Return the choices as Optuna writes them."""
    return {name: CategoricalDistribution(tuple(values)) for name, values in choices.items()}


def derived(*numbers: int) -> int:
    """Return a seed that follows from ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False)


SAMPLERS: dict[str, Proposer] = {
    "tpe": OptunaProposer(_tpe, most=200),
    "gp": OptunaProposer(_gp, most=100, attempts=6),
    "nsga2": OptunaProposer(lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION), most=200),
    "random": OptunaProposer(lambda seed: RandomSampler(seed=seed), most=0),
}
"""``search.sampler`` -> proposer."""
