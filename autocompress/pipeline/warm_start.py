"""Where a search starts: the plans that sensitivities and predicted costs say are best, for a ladder of budgets.

What all layers have in common (depth, hidden width, tokens that reach the last one) is tried value by value; for each,
a knapsack chooses among the options of the layers and of what is beside them. Puzzle (Bercovich et al. 2025) found that
single scores pick bad sets of layers to leave out: which layers stay is left to the depth's own selection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeAlias

import numpy as np

from autocompress.compression.depth import DepthStep
from autocompress.compression.drawing import Drawing
from autocompress.compression.method import Space, of_layer
from autocompress.cost import Figures
from autocompress.pipeline.candidates import OF_LAYERS, choices
from autocompress.pipeline.sensitivities import Sensitivities
from autocompress.plan import CompressionPlan
from autocompress.search.knapsack import Floats, solve
from autocompress.search.objective import Params
from autocompress.shape import ModelShape

Held: TypeAlias = Callable[[Sequence[ModelShape]], Mapping[str, Floats]]

COMMON = ("depth", "hidden_keep", "tokens_keep")
"""Choices that multiply the costs of others."""
BESIDE = ("vocabulary_keep", "embedding_rank", "embedding_bits", "head_bits")
"""Choices that add to the costs of layers."""
LADDER = (0.5, 1.0, 0.7, 0.35, 0.85)
"""Shares of the budget that are solved for: half of it first, so that there is a front from the first two on."""
ATTEMPTS = 5
"""Costs of options do not quite add up: so often limits are moved by how far the sum was off for a whole plan."""


@dataclass(frozen=True)
class Solved:
    """Choices of every parameter, how many nats they are foreseen to cost, and for which share of the budget."""

    params: Params
    nats: float
    share: float


@dataclass(frozen=True)
class _Problem:
    """A knapsack, whatever its limits: options of each group, their losses, and costs beside those of the base."""

    base: Params
    groups: Sequence[Sequence[Params]]
    losses: Sequence[Floats]
    whole: Floats
    costs: Sequence[Floats]


@dataclass(frozen=True)
class WarmStart:
    """What is asked: the least loss of a space inside limits.

    Attributes:
        shape: Of what students are made of.
        space: With what drawing needs.
        sensitivities: Of its choices.
        held: Says what of shapes is held against limits, by the names of these: (shapes,) each.
    """

    shape: ModelShape
    space: Space
    sensitivities: Sensitivities
    held: Held

    def ladder(self, limits: Figures) -> list[Solved]:
        """Return the best choices for each share of ``limits`` that any are inside of, without equal plans."""
        found: dict[CompressionPlan, Solved] = {}
        problems = [self._problem(common, limits) for common in self._commons()]
        for share in LADDER:
            rung = [each for problem in problems if (each := self._best(problem, limits, share))]
            if rung:
                best = min(rung, key=lambda each: each.nats)
                found.setdefault(self._plan(best.params), best)
        return list(found.values())

    def _problem(self, common: Params, limits: Figures) -> _Problem:
        """Return what there is to choose from with ``common`` choices."""
        base = {**self.sensitivities.base, **common}
        groups = [self._options(names) for names in self._groups(base)]
        losses = [np.array([self.sensitivities.of(option) for option in options]) for options in groups]
        whole = self._costs([base], limits)[0]
        costs = [self._costs([{**base, **option} for option in options], limits) - whole for options in groups]
        return _Problem(base, groups, losses, whole, costs)

    def _best(self, problem: _Problem, limits: Figures, share: float) -> Solved | None:
        """Return the choices of least summed loss that are inside ``share`` of the limits, if any are."""
        allowed = share * np.array(list(limits.values()))
        best, left, tried = None, allowed, set[tuple[int, ...]]()
        while (
            (picked := solve(problem.losses, problem.costs, left - problem.whole))
            and picked not in tried
            and len(tried) < ATTEMPTS
        ):
            tried.add(picked)
            params = dict(problem.base)
            for at, options in zip(picked, problem.groups, strict=True):
                params |= options[at]
            held = self._costs([params], limits)[0]
            solved = Solved(params, self.sensitivities.of(params), share)
            if (held <= allowed).all() and (best is None or solved.nats < best.nats):
                best = solved
            summed = problem.whole + sum(cost[at] for at, cost in zip(picked, problem.costs, strict=True))
            left = allowed + summed - held
        return best

    def _commons(self) -> Iterator[Params]:
        options = choices(self.space)
        return (dict(zip(COMMON, values, strict=True)) for values in product(*(options[name] for name in COMMON)))

    def _groups(self, base: Params) -> list[tuple[str, ...]]:
        """Return the parameters that are chosen together: those of a layer, or of all layers alike."""
        beside = [(name,) for name in BESIDE]
        if not self.space.own_layers:
            return [OF_LAYERS, *beside]
        (depth,) = (step for step in self._plan(base).steps if isinstance(step, DepthStep))
        layers = [self.space.own_layers[index] for index in depth.kept]
        return [*(tuple(of_layer(name, layer) for name in OF_LAYERS) for layer in layers), *beside]

    def _options(self, names: Sequence[str]) -> list[Params]:
        options = choices(self.space)
        return [dict(zip(names, values, strict=True)) for values in product(*(options[name] for name in names))]

    def _costs(self, params: Sequence[Params], limits: Figures) -> Floats:
        """Return what a budget is held against (candidates x limits), in the limits' units."""
        shapes = [self._drawing(each).shape for each in params]
        held = self.held(shapes)
        return np.array([held[name] for name in limits]).reshape(len(limits), len(params)).T

    def _plan(self, params: Params) -> CompressionPlan:
        return self._drawing(params).plan

    @cached_property
    def _drawing(self) -> Drawing:
        return Drawing(self.shape, self.space)
