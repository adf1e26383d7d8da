"""The end of the main job: measure the finalists, choose, prove, pack and report."""

from __future__ import annotations

import json
from collections.abc import Sequence

from autocompress.cost import Artifact
from autocompress.evaluation.task import Score, predict_with
from autocompress.export.parity import Parity, gate
from autocompress.pipeline.finalists import Made, export, measure, parity, score
from autocompress.pipeline.outcome import Outcome, choose
from autocompress.pipeline.package import pack
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.summary import summarize
from autocompress.pipeline.workspace import Workspace
from autocompress.report.page import render
from autocompress.report.values import RunReport
from autocompress.search.records import Record


def deliver(
    setting: Setting, made: Sequence[Made], found: Sequence[Record], workspace: Workspace, progress: Progress
) -> RunReport:
    """Measure, choose, prove, pack and report.

    Raises:
        ParityError: The winner's artifact does not compute what its student computes.
    """
    config, teacher = setting.config, setting.teacher
    progress("measure", 0, 1, f"{len(made)} models in turn")
    measured = measure(made, config=config, vocabulary=teacher.shape.vocabulary) if setting.on_this_machine else {}
    limits = setting.feasibility.limits
    if measured:
        limits = config.budget.to_budget().resolve(measured["teacher"].figures())
    winner = choose([item for item in made if item.name.startswith("candidate")], measured, limits)
    progress("measure", 1, 1, f"{winner.name} is delivered")
    scores = _scores(setting, made, winner, progress)
    parities: list[Parity] = []
    artifacts: dict[str, Artifact] = {}
    for index, engine in enumerate(config.export.formats):
        progress("prove", index, len(config.export.formats), engine)
        target = None if setting.on_this_machine else setting.profile.tvm_target
        is_device_engine = engine == config.device.engine
        artifacts[engine] = (
            winner.artifact
            if is_device_engine
            else export(winner.student, winner.artifact.path.with_suffix(""), engine, config.task.max_tokens, target)
        )
        if engine == "tvm" and not setting.on_this_machine:
            continue  # Compiled for another processor: it cannot run here.
        artifact_score = scores[winner.name] if is_device_engine else score(artifacts[engine], teacher)
        parities.append(parity(winner, artifacts[engine], teacher, config, artifact_score))
        gate(parities[-1])
    progress("prove", len(config.export.formats), len(config.export.formats), "the artifacts compute what was searched")
    outcome = Outcome(made, winner, measured, scores, limits, parities)
    report = summarize(setting, outcome, found)
    folder = workspace.best if report.verdict in ("pass", "estimated") else workspace.closest
    pack(folder, setting, outcome, artifacts, report)
    workspace.result.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    workspace.page.write_text(render(report), encoding="utf-8")
    return report


def _scores(setting: Setting, made: Sequence[Made], winner: Made, progress: Progress) -> dict[str, Score]:
    """Score teacher, alternatives and winner on the test documents, by what the engine computes."""
    wanted = [item for item in made if item is winner or not item.name.startswith("candidate")]
    scores = {}
    for index, item in enumerate(wanted):
        progress("evaluate", index, len(wanted), item.name)
        if item.artifact.engine == "tvm" and not setting.on_this_machine:
            scores[item.name] = setting.teacher.task.evaluate(predict_with(item.student), "test")
        else:
            scores[item.name] = score(item.artifact, setting.teacher)
    progress("evaluate", len(wanted), len(wanted), f"{winner.name}: {scores[winner.name].value:.4f}")
    return scores
