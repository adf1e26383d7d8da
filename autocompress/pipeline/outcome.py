"""What was found about everything that was made, and which of it is delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from autocompress.cost import Figures, Measurement
from autocompress.evaluation.task import Answers, Score
from autocompress.export.parity import Parity
from autocompress.pipeline.finalists import TEACHER, Made
from autocompress.report.values import AGREEMENT


@dataclass(frozen=True)
class Outcome:
    """What was found about everything that was made.

    Attributes:
        made: Teacher, alternatives and finalists.
        winner: The finalist that is delivered.
        measured: By name; empty where the device was not there to measure on.
        answers: To the test documents, by name.
        limits: Absolute limits: of measured figures where there are any, else of predicted ones.
        parities: Of the winner, one an engine that runs here.
        omitted: Engine -> why it has no artifact, where the tools to build one are missing.
    """

    made: Sequence[Made]
    winner: Made
    measured: Mapping[str, Measurement]
    answers: Mapping[str, Answers]
    limits: Figures
    parities: Sequence[Parity]
    omitted: Mapping[str, str]

    @property
    def scores(self) -> dict[str, Score]:
        """Return the task's metric on the test documents, by name."""
        return {
            item.name: item.task.judge(self.answers[item.name], "test")
            for item in self.made
            if item.name in self.answers
        }

    @property
    def agreements(self) -> dict[str, Score]:
        """Return the share of test documents that are answered as the teacher answers them, by name."""
        theirs = self.answers[TEACHER]
        return {name: _agreement(ours, theirs) for name, ours in self.answers.items()}

    @property
    def broken(self) -> tuple[str, ...]:
        """Limits that the measured winner exceeds."""
        return exceeded(self.measured.get(self.winner.name), self.limits)


def _agreement(ours: Answers, theirs: Answers) -> Score:
    same = [ours[place] == answer for place, answer in theirs.items()]
    share = fmean(same)
    return Score(AGREEMENT, share, sqrt(share * (1 - share) / len(same)), len(same))


def exceeded(measurement: Measurement | None, limits: Figures) -> tuple[str, ...]:
    """Return the limits that a measurement exceeds; none where nothing was measured."""
    if measurement is None:
        return ()
    figures = measurement.figures()
    return tuple(name for name, limit in limits.items() if figures[name] > limit)


def choose(finalists: Sequence[Made], measured: Mapping[str, Measurement], limits: Figures) -> Made:
    """Return the finalist of the best validation score among those inside every limit as measured.

    Where none is inside, the one that exceeds its worst limit least.
    """
    inside = [item for item in finalists if not exceeded(measured.get(item.name), limits)]
    if inside:
        return max(inside, key=lambda item: item.validation)

    def excess(item: Made) -> float:
        figures = measured[item.name].figures()
        return max(figures[name] / limit for name, limit in limits.items())

    return min(finalists, key=excess)
