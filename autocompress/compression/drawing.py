"""Plans and shapes of many choices: what two combinations have in common is worked out once.

Methods ask one after the other, and what each answers and leaves follows from what was chosen before. So choices are
a path in a tree whose nodes are questions; only where a path leaves the tree is a method asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autocompress.compression.method import Space
from autocompress.compression.methods import METHODS, after
from autocompress.plan import Chosen, CompressionPlan, Step, T
from autocompress.shape import ModelShape

MOST = 200_000
"""Answers that are remembered; with more the tree is grown anew, so that memory stays flat."""


@dataclass(frozen=True)
class Drawn:
    """A plan, and the shape of its student."""

    plan: CompressionPlan
    shape: ModelShape


@dataclass
class _Question:
    """A name that a method asks for, and where each choice leads; or the end of what it asks, with its answer."""

    name: str = ""
    choices: dict[object, _Question] = field(default_factory=dict)
    answer: tuple[Step, _State] | None = None


@dataclass
class _State:
    """What a method finds, and what it asks then."""

    shape: ModelShape
    space: Space
    question: _Question = field(default_factory=_Question)


class Drawing:
    """Draws plans from one space; equal to ``methods.draw`` and ``methods.reshape_plan``.

    Args:
        shape: Of what students are made of.
        space: To draw from.
    """

    def __init__(self, shape: ModelShape, space: Space) -> None:
        self._shape, self._space = shape, space
        self._root, self._answers = _State(shape, space), 0

    def __call__(self, params: Mapping[str, object]) -> Drawn:
        """Return what comes of ``params``: a choice for each name of which there are several."""
        if self._answers > MOST:
            self._root, self._answers = _State(self._shape, self._space), 0
        state, steps = self._root, []
        for name in METHODS:
            step, state = self._known(state, params) or self._asked(name, state, params)
            steps.append(step)
        return Drawn(CompressionPlan(tuple(steps)), state.shape)

    @staticmethod
    def _known(state: _State, params: Mapping[str, object]) -> tuple[Step, _State] | None:
        question: _Question | None = state.question
        while question is not None and question.answer is None:
            question = question.choices.get(params[question.name]) if question.name else None
        return None if question is None else question.answer

    def _asked(self, name: str, state: _State, params: Mapping[str, object]) -> tuple[Step, _State]:
        method, trial = METHODS[name], _Recorded(params, state.question)
        step = method.suggest(trial, state.shape, state.space)
        trial.question.answer = step, _State(method.reshape(state.shape, step), after(state.space, step))
        self._answers += 1
        return trial.question.answer


class _Recorded:
    """A trial whose choices are made, which lengthens the path as it is asked; satisfies ``plan.Suggest``."""

    def __init__(self, params: Mapping[str, object], question: _Question) -> None:
        self._chosen, self.question = Chosen(params), question

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """Return the choice made for ``name``; where there is one alone, that is no question."""
        chosen = self._chosen.suggest_categorical(name, choices)
        if len(choices) > 1:
            self.question.name = name
            self.question = self.question.choices.setdefault(chosen, _Question())
        return chosen
