"""The end of the main job: measure the finalists, choose, prove, pack and report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.cost import Artifact, Figures, Measurement
from autocompress.errors import MissingDependencyError
from autocompress.evaluation.task import Answers, Score, predict_with
from autocompress.export.parity import Parity, gate
from autocompress.models.load import adapter_of
from autocompress.pipeline.bench import reach_runner
from autocompress.pipeline.finalists import TEACHER, Made, answers, export, measure, parity
from autocompress.pipeline.outcome import Outcome, choose, exceeded
from autocompress.pipeline.package import pack
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.summary import summarize
from autocompress.pipeline.workspace import Workspace
from autocompress.profiling.energy import with_power
from autocompress.report.values import RunReport
from autocompress.search.records import Record


@dataclass(frozen=True)
class Measured:
    """What was measured of all that was made.

    Attributes:
        by_name: Empty where the device was not there to measure on.
        limits: Absolute limits: of measured figures where there are any, else of predicted ones.
    """

    by_name: Mapping[str, Measurement]
    limits: Figures

    def inside(self, made: Iterable[Made]) -> bool:
        """Return whether any finalist is inside every limit, as far as was measured."""
        return any(item.finalist and not exceeded(self.by_name.get(item.name), self.limits) for item in made)


@dataclass(frozen=True)
class Finished:
    """All that was made and measured for a device.

    Attributes:
        setting: As the device sees it.
        workspace: Of the device.
        made: Teacher, alternatives and finalists.
        measured: What was measured of these.
        found: The candidates, as the device sees them.
    """

    setting: Setting
    workspace: Workspace
    made: Sequence[Made]
    measured: Measured
    found: Sequence[Record]


@dataclass(frozen=True)
class Delivered:
    """A proven package, and what is told of it."""

    winner: Made
    report: RunReport
    folder: Path


def measure_all(setting: Setting, made: Sequence[Made], progress: Progress) -> Measured:
    """Measure all that was made in turn on the device, if it is there.

    Raises:
        DeviceError: One of them does not run, or the board cannot be reached.
    """
    if not setting.measurable:
        return Measured({}, setting.feasibility.limits)
    config = setting.config
    progress("measure", 0, 1, f"{len(made)} models in turn on {setting.profile.name}")
    vocabulary = min(adapter_of(item.student).shape(item.student).vocabulary for item in made)  # Ids that all have.
    with reach_runner(setting.profile, keeps=len(made)) as runner:
        results = measure(made, runner, setting.profile, threads=config.device.threads, vocabulary=vocabulary)
    # Where nothing meters energy today, the power that predictions go by tells it, as the budget is held against both.
    measured = {name: with_power(result, setting.predictor.power_w) for name, result in results.items()}
    return Measured(measured, config.budget.to_budget().resolve(measured[TEACHER].figures()))


class Examiner:
    """Asks models for the test documents: each once in each engine, however many devices it is built for."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], Answers] = {}

    def __call__(self, setting: Setting, item: Made) -> Answers:
        """Return what a model answers, in the device's engine where that runs here, else in torch."""
        here = setting.runs_here(item.artifact.engine)
        key = (item.name, item.artifact.engine if here else "")
        if key not in self._given:
            asked = answers(item.artifact, item.task) if here else item.task.answers(predict_with(item.student), "test")
            self._given[key] = asked
        return self._given[key]


def prove(
    setting: Setting,
    made: Sequence[Made],
    measured: Measured,
    progress: Progress,
    ask: Examiner,
    winner: Made | None = None,
) -> tuple[Outcome, dict[str, Artifact]]:
    """Choose among the finalists, and hold the winner's artifacts against its student.

    Args:
        setting: As the device sees it.
        made: For the device.
        measured: There.
        progress: Told of every step.
        ask: Asks them for the test documents.
        winner: The finalist that is delivered; ``None``: the best.

    Returns:
        What was found, and the winner's artifact for each engine.

    Raises:
        ParityError: An artifact does not compute what the student computes.
    """
    winner = winner or choose([item for item in made if item.finalist], measured.by_name, measured.limits)
    receiver = f" to {setting.config.device_name}" if setting.config.fleet else ""
    progress("measure", 1, 1, f"{winner.name} is delivered{receiver}")
    given = _answers(setting, made, winner, ask, progress)
    artifacts, omitted = _artifacts(setting, winner)
    known = winner.task.judge(given[winner.name], "test")
    parities = list(_parities(setting, winner, artifacts, known, progress))
    return Outcome(made, winner, measured.by_name, given, measured.limits, parities, omitted), artifacts


def deliver(finished: Finished, progress: Progress, ask: Examiner, shared: Made | None = None) -> Delivered:
    """Prove and pack the winner of a device, or what it shares with the fleet.

    Raises:
        ParityError: An artifact does not compute what the student computes.
    """
    setting, workspace = finished.setting, finished.workspace
    outcome, artifacts = prove(setting, finished.made, finished.measured, progress, ask, shared)
    report = summarize(setting, outcome, finished.found)
    folder = workspace.shared if shared else workspace.package(report.verdict)
    pack(folder, setting, outcome, artifacts, report)
    return Delivered(outcome.winner, report, folder)


def _artifacts(setting: Setting, winner: Made) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Return the winner's artifact for each engine, and why there is none for an engine whose tools are missing."""
    config = setting.config
    artifacts: dict[str, Artifact] = {config.device.engine: winner.artifact}
    omitted: dict[str, str] = {}
    for engine in config.export.formats:
        if engine not in artifacts:
            stem = winner.artifact.path.with_suffix("")
            tokens, target = config.task.max_tokens, setting.target
            try:
                artifacts[engine] = export(winner.student, stem, engine, tokens, target, setting.container)
            except MissingDependencyError as error:
                omitted[engine] = f"{error.wrong} {error.next_step}"
    return artifacts, omitted


def _parities(
    setting: Setting, winner: Made, artifacts: dict[str, Artifact], known: Score, progress: Progress
) -> Iterator[Parity]:
    for index, (engine, artifact) in enumerate(artifacts.items()):
        progress("prove", index, len(artifacts), engine)
        if setting.runs_here(engine):
            found = known
            if artifact is not winner.artifact:
                found = winner.task.judge(answers(artifact, winner.task), "test")
            result = parity(winner, artifact, setting.config, found)
            gate(result)
            yield result
    progress("prove", len(artifacts), len(artifacts), "the artifacts compute what was searched")


def _answers(
    setting: Setting, made: Sequence[Made], winner: Made, ask: Examiner, progress: Progress
) -> dict[str, Answers]:
    """Ask teacher, alternatives and winner for the test documents."""
    wanted = [item for item in made if item is winner or not item.finalist]
    found: dict[str, Answers] = {}
    for index, item in enumerate(wanted):
        progress("evaluate", index, len(wanted), item.name)
        found[item.name] = ask(setting, item)
    right = winner.task.judge(found[winner.name], "test")
    progress("evaluate", len(wanted), len(wanted), f"{winner.name}: {right.value:.4f}")
    return found
