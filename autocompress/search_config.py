"""How long and how thoroughly to look, as a run file says it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autocompress.devices.quantities import Bytes, Hours
from autocompress.devices.validation import MisfitError, Section
from autocompress.search_space import Count, Space

Sampler = Literal["informed", "tpe", "gp", "nsga2", "random"]
"""Ours (``search.informed``), and names in ``search.proposing.SAMPLERS``."""


Steps = Annotated[int, Field(ge=0)]


class Search(Section):
    """How long and how thoroughly to look."""

    hours: Hours = Field(default=8.0, description="Begin no candidate this long after the first: 8 or 30 min.")
    trials: Count = Field(default=100, description="Stop after this many scored candidates.")
    seed: int = Field(default=0, ge=0, description="The same seed and file give the same sequence of candidates.")
    sampler: Sampler = Field(
        default="informed",
        description="What proposes: informed first measures what each choice costs alone, the others are Optuna's.",
    )
    warm_start: int = Field(
        default=2,
        ge=0,
        description="Candidates that are solved for beforehand from what choices cost alone, for shares of the budget.",
    )
    parallel: Count = Field(
        default=4,
        description="Most candidates in work at once, by all workers together; part of what the seed decides.",
    )
    storage: str | None = Field(
        default=None,
        pattern=r"^(journal:|\w[\w+]*://).+",
        description="journal:PATH, a database URL such as sqlite:///PATH or postgresql://USER@HOST/DATABASE, or"
        " grpc://HOST:PORT; by default a journal in the run's folder.",
    )
    space: Space = Field(default_factory=Space, description="What to choose from.")
    distill_steps: int = Field(default=100, ge=0, description="Training steps of each candidate.")
    rungs: tuple[Steps, ...] = Field(
        default=(),
        description="Fewer steps, such as [0, 30], after which only the best third of the candidates goes on.",
    )
    variants: Count = Field(
        default=20, description="Of each training document, for recipes that learn from documents with words replaced."
    )
    teacher_cache: Bytes = Field(
        default=2 * 1024**3, description="Room on disk for what teachers gave for training documents; old ones go."
    )
    training_device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="Where teacher and students are trained; auto: on a GPU where torch finds one."
    )
    refine_steps: int = Field(default=1000, ge=0, description="Training steps of each finalist.")
    quantization_aware_steps: int = Field(
        default=150,
        ge=0,
        description="More of these after its weights are rounded to 4 bits or fewer; what makes it worse is undone.",
    )
    quantization_aware_learning_rate: float = Field(default=1e-4, gt=0, description="Peak of those, after a warm-up.")
    finalists: Count = Field(default=3, description="Best candidates that are refined, exported and measured.")
    baselines: bool = Field(default=True, description="Whether the obvious alternatives are made and measured too.")
    batch_size: Count = Field(default=32, description="Documents a training step.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak, after a warm-up.")
    score_limit: Count = Field(default=512, description="Validation documents that a candidate is scored on.")

    @model_validator(mode="after")
    def _climbs(self) -> Self:
        steps = [*self.rungs, self.distill_steps]
        if any(low >= high for low, high in pairwise(steps)):
            raise MisfitError(
                f"search.rungs are {list(self.rungs)} and search.distill_steps is {self.distill_steps}",
                "Write training steps that rise from rung to rung and stay below distill_steps, or leave rungs out.",
            )
        return self
