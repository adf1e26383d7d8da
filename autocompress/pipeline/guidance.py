"""What a search knows before its first candidate: what choices cost alone, and which plans are foreseen to be best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space
from autocompress.cost import Figures
from autocompress.pipeline.candidates import Students, choices
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.sensitivities import Sensitivities, measure
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.warm_start import Held, WarmStart
from autocompress.predictors.cost_table import VALUE
from autocompress.search.informed import Foreseen, Informed
from autocompress.search.knapsack import Floats
from autocompress.search.objective import Params, by_device
from autocompress.search.proposing import SAMPLERS, Proposer
from autocompress.search.surrogate import Nats
from autocompress.shape import ModelShape

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
    if not (wanted and choice and setting.feasible):
        return None
    found = measure(students, space, seed=search.seed, progress=progress)
    return Guidance(found.nats, solutions(setting, students.start.shape, space, found))


def solutions(setting: Setting, shape: ModelShape, space: Space, found: Sensitivities) -> list[Params]:
    """Return the best choices for shares of each device's budget, and before these for all budgets of several devices.

    The first rungs of all ladders come first, so that however few are tried each device has its share.
    """
    ladders = [
        [solved.params for solved in WarmStart(shape, space, found, held).ladder(limits)]
        for held, limits in _asked(setting)
    ]
    return [params for rung in zip_longest(*ladders) for params in rung if params is not None]


def warm_start(setting: Setting, known: Guidance | None) -> Sequence[Params]:
    """Return the solutions that are tried first: so many for each device, and where there are several for all."""
    return known.warm[: setting.config.search.warm_start * len(_asked(setting))] if known else ()


def _asked(setting: Setting) -> list[tuple[Held, Figures]]:
    """Return what is solved for: the limits of all devices together, where there are several, and of each."""
    each = {name: (_held(seen), seen.feasibility.limits) for name, seen in setting.everywhere.items()}
    if len(each) == 1:
        return list(each.values())

    def together(shapes: Sequence[ModelShape]) -> Mapping[str, Floats]:
        return by_device({name: held(shapes) for name, (held, _) in each.items()})

    return [(together, by_device({name: limits for name, (_, limits) in each.items()})), *each.values()]


def _held(setting: Setting) -> Held:
    return lambda shapes: setting.predictor.predict_many(shapes, setting.config.task.max_tokens).held()


def proposer_of(setting: Setting, drawing: Drawing, known: Guidance | None) -> Proposer:
    """Return what proposes candidates of the run."""
    name = setting.config.search.sampler
    if name != INFORMED or known is None:
        return SAMPLERS.get(name, SAMPLERS["random"])  # Nothing is proposed where nothing fits.

    first, *others = [partial(_foresee, seen, drawing) for seen in setting.everywhere.values()]

    def together(candidates: Sequence[Params]) -> Foreseen:
        fits, latencies = zip(*(foresee(candidates) for foresee in (first, *others)), strict=True)
        return np.logical_and.reduce(fits), np.exp(np.mean(np.log(latencies), axis=0))

    return Informed(known.nats, first, known.warm, others=(*others, together) if others else ())


def _foresee(setting: Setting, drawing: Drawing, candidates: Sequence[Params]) -> Foreseen:
    """Say what a device can take of candidates, and their median latencies there."""
    shapes, limits = [drawing(params).shape for params in candidates], setting.feasibility.limits
    costs = setting.predictor.predict_many(shapes, setting.config.task.max_tokens)
    held = costs.held()
    inside = np.logical_and.reduce([costs.known, *(held[each] <= limit for each, limit in limits.items())])
    return inside, costs.figures["latency_p50_ms"][:, VALUE]
