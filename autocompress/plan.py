"""Decisions about a model, as frozen values that read and write as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

from autocompress.errors import ConfigError

T = TypeVar("T", bound=bool | int | float | str)

LayerSelection: TypeAlias = Literal["uniform", "tinybert", "distilbert", "dynabert", "block_influence", "replace_one"]
"""How the layers that stay are chosen (``compression.depth``): by a map of their places, or by measured importance."""
HeadCriterion: TypeAlias = Literal["magnitude", "activation", "taylor", "fisher", "block_fisher", "obs", "kron_obs"]
"""What the importance of heads is measured by (``compression.order.CRITERIA``)."""
Criterion: TypeAlias = Literal[HeadCriterion, "l2p"]
"""The same of neurons."""
Allocation: TypeAlias = Literal["uniform", "global"]
"""Whether layers keep equal shares of their units, or the units of all layers compete for as many."""
RepairKind: TypeAlias = Literal["none", "mask_tuning", "least_squares"]
"""How weights make up for what was removed (``compression.repair``)."""
Rounding: TypeAlias = Literal["nearest", "optq", "aespa", "descent"]
"""How levels are chosen for weights of 8 bits and fewer (``compression.rounding.levels``)."""

RecipeName: TypeAlias = Literal[
    "logits",
    "self_distillation",
    "cross_entropy",
    "distilbert",
    "tinybert",
    "minilm",
    "minilmv2",
    "cofi",
    "ei_bert",
    "steady",
    "steady_hidden",
]
"""How a student is trained (``compression.recipes.table``)."""
Positions: TypeAlias = Literal["all", "task"]
"""Which positions students have: all of the teacher's, or those that the task's documents reach."""
RangeKind: TypeAlias = Literal["minmax", "percentile", "mse"]
"""How the range of static activations is chosen (``compression.activations.ranges``)."""


class Step(Protocol):
    """One decision of one method: a frozen dataclass of JSON values (tuples for lists)."""

    method: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


class Suggest(Protocol):
    """What a method's ``suggest`` may ask of a trial; Optuna's ``Trial`` satisfies it."""

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """Choose one of ``choices``."""


@dataclass(frozen=True)
class Chosen:
    """A trial whose choices are made; satisfies ``Suggest``."""

    params: Mapping[str, object]

    def suggest_categorical(self, name: str, choices: Sequence[T]) -> T:
        """Return the choice made for ``name``; where there is one alone, it need not be made."""
        return choices[0] if len(choices) == 1 else choices[choices.index(self.params[name])]


@dataclass(frozen=True)
class CompressionPlan:
    """The steps that make a student of a teacher, in the order in which they are applied."""

    steps: tuple[Step, ...] = ()

    def to_json(self) -> list[dict[str, object]]:
        """Return plain JSON values; ``from_json`` reads them back."""
        return [{"method": step.method, **asdict(step)} for step in self.steps]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, object]], steps: Mapping[str, type[Step]]) -> CompressionPlan:
        """Read what ``to_json`` wrote.

        Args:
            data: One mapping a step, with the method's name under ``method``.
            steps: The step class of each method.

        Raises:
            ConfigError: A method is unknown, or a step has fields that the method does not have.
        """
        return cls(tuple(_read_step(entry, steps) for entry in data))


def _read_step(entry: Mapping[str, object], steps: Mapping[str, type[Step]]) -> Step:
    fields = {key: _tuples(value) for key, value in entry.items() if key != "method"}
    kind = steps.get(str(entry.get("method")))
    if kind is None:
        raise ConfigError(
            f"A plan names the method {entry.get('method')!r}.",
            right=f"Methods are {', '.join(sorted(steps))}.",
            next_step="Correct the plan, or install the version that wrote it.",
        )
    try:
        return kind(**fields)
    except TypeError as error:
        raise ConfigError(
            f"The step {dict(entry)!r} cannot be read: {error}.",
            right=f"Fields of {kind.method} are {', '.join(kind.__dataclass_fields__)}.",
            next_step="Correct the plan, or install the version that wrote it.",
        ) from None


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
