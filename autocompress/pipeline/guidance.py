"""What a search knows before its first candidate: what choices cost alone, and which plans are foreseen to be best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.pipeline.candidates import Students, choices
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.sensitivities import measure
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.warm_start import WarmStart
from autocompress.predictors.cost_table import VALUE
from autocompress.search.informed import Foreseen, Informed
from autocompress.search.objective import Params
from autocompress.search.proposing import SAMPLERS, Proposer
from autocompress.search.surrogate import Nats

INFORMED = "informed"
"""The sampler that is ours; the others are Optuna's."""


@dataclass(frozen=True)
class Guidance:
    """See the module.

    Attributes:
        nats: What choices cost alone.
        warm: Choices that a knapsack made for shares of the budget.
    """

    nats: Nats
    warm: Sequence[Params]

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return {"nats": {name: list(costs.items()) for name, costs in self.nats.items()}, "warm": list(self.warm)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Guidance:
        """Read what ``to_dict`` wrote."""
        return cls({name: dict(costs) for name, costs in data["nats"].items()}, data["warm"])


def guidance(setting: Setting, students: Students, space: Space, progress: Progress) -> Guidance | None:
    """Measure and solve what the run's sampler or its first candidates need; ``None`` if nothing does."""
    search = setting.config.search
    wanted = search.sampler == INFORMED or search.warm_start > 0
    choice = any(len(values) > 1 for values in choices(space).values())
    if not (wanted and choice and setting.feasibility.feasible):
        return None
    found = measure(students, space, seed=search.seed, progress=progress)
    start = WarmStart(students.start.shape, space, found, setting.predictor, setting.config.task.max_tokens)
    return Guidance(found.nats, [solved.params for solved in start.ladder(setting.feasibility.limits)])


def proposer_of(setting: Setting, drawing: Drawing, known: Guidance | None) -> Proposer:
    """Return what proposes candidates of the run."""
    name, tokens, limits = setting.config.search.sampler, setting.config.task.max_tokens, setting.feasibility.limits
    if name != INFORMED or known is None:
        return SAMPLERS.get(name, SAMPLERS["random"])  # Nothing is proposed where nothing fits.

    def foresee(candidates: Sequence[Params]) -> Foreseen:
        costs = setting.predictor.predict_many([drawing(params).shape for params in candidates], tokens)
        held = costs.held()
        inside = np.logical_and.reduce([costs.known, *(held[each] <= limit for each, limit in limits.items())])
        return inside, costs.figures["latency_p50_ms"][:, VALUE]

    return Informed(known.nats, foresee, known.warm)
