"""What was measured at the end flows back: the predictor is fitted again, and says anew what fits the budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autocompress.compression.methods import read_plan, reshape_plan
from autocompress.config import load_config
from autocompress.cost import FIGURES, Figures, Measurement
from autocompress.devices.load import load_profile
from autocompress.devices.paths import data_folders
from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from autocompress.pipeline.finalists import Made
from autocompress.pipeline.known import MODELS, best_known, relatives
from autocompress.pipeline.progress import Progress
from autocompress.pipeline.setting import Setting
from autocompress.pipeline.workspace import existing
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.store import find, load, save
from autocompress.profiling.drift import without_waiting
from autocompress.search.objective import violations
from autocompress.search.records import Record, finalists
from autocompress.shape import ModelShape


def learn(
    setting: Setting, made: Sequence[Made], measured: Mapping[str, Measurement], folder: Path, progress: Progress
) -> Setting:
    """Return ``setting`` with a predictor that has seen what was measured, and keep that in ``folder``.

    Intervals that did not hold a measured value are told. A roofline learns nothing. The device's own predictor is left
    alone, so that equal runs try equal candidates; ``adopt`` adds to it what a run has learnt.
    """
    predictor = setting.predictor
    if not isinstance(predictor, FittedPredictor) or not measured:
        return setting
    tokens = setting.config.task.max_tokens
    shapes = {item.name: adapter_of(item.student).shape(item.student) for item in made if item.name in measured}
    for surprise in surprises(predictor, shapes, measured, tokens):
        progress("measure", 0, 1, surprise)
    new = [Sample.of(shape, tokens, without_waiting(measured[name])) for name, shape in shapes.items()]
    again = refit(predictor, new)
    save(again, folder)
    return replace(setting, predictor=again)


def adopt(run_folder: Path) -> list[FittedPredictor]:
    """Add what the run in ``run_folder`` has learnt to the own predictor of each device, and return these.

    Raises:
        ConfigError: The folder is no run, or nothing was measured in it.
        StorageError: A predictor is damaged.
    """
    workspace = existing(run_folder)
    config = load_config(workspace.config)
    devices = (config.device, *config.fleet)
    found = []
    for device in devices:
        path = find((workspace.learnt,), device.profile, device.engine, device.threads)
        if path is None:
            continue
        learnt = load(path)
        known = best_known(load_profile(device.profile), device.engine, device.threads)
        found.append(learnt if known is None else refit(known, learnt.samples))
        save(found[-1], data_folders(MODELS)[0])
    if not found:
        raise ConfigError(
            f"The run {run_folder} has learnt nothing about {', '.join(device.profile for device in devices)}.",
            right="A run that measured its finalists, and had a fitted predictor, has.",
            next_step="Finish it: autocompress search RUN.yaml --resume.",
        )
    return found


def refit(predictor: FittedPredictor, new: Sequence[Sample]) -> FittedPredictor:
    """Return ``predictor`` fitted on its samples and new ones; the newest of a shape counts."""
    every = {(sample.shape, sample.tokens): sample for sample in (*predictor.samples, *new)}
    return fit(
        tuple(every.values()),
        device=predictor.device,
        engine=predictor.engine,
        threads=predictor.threads,
        provenance=predictor.provenance,
        timeline=predictor.timeline,
        known=relatives(predictor.device, predictor.engine, predictor.threads, predictor.provenance),
    )


def surprises(
    predictor: FittedPredictor,
    shapes: Mapping[str, ModelShape],
    measured: Mapping[str, Measurement],
    tokens: int,
) -> Iterator[str]:
    """Say in words which measured values lie outside their predicted intervals."""
    for name, shape in shapes.items():
        cost, figures = predictor.predict(shape, tokens, extrapolate=True), without_waiting(measured[name]).figures()
        for figure in FIGURES:
            foreseen = getattr(cost, figure)
            if not foreseen.low <= figures[figure] <= foreseen.high:
                yield (
                    f"{name}: {figure} is {figures[figure]:.6g} as measured;"
                    f" {foreseen.low:.6g} to {foreseen.high:.6g} were foreseen"
                )


def next_best(setting: Setting, found: Sequence[Record], limits: Figures, count: int) -> list[Record]:
    """Return the best scored candidates that fit, as the predictor of ``setting`` sees them now.

    Args:
        setting: With the predictor that has learnt.
        found: Candidates that were not measured yet.
        limits: In absolute units.
        count: Most candidates.
    """
    scored = [record for record in found if record.score is not None]
    shapes = [reshape_plan(setting.start.shape, read_plan(record.plan)) for record in scored]
    costs = setting.predictor.predict_many(shapes, setting.config.task.max_tokens) if shapes else ()
    inside = [
        record
        for record, cost in zip(scored, costs, strict=True)
        if max(violations(cost, limits).values(), default=0.0) <= 0
    ]
    return finalists(inside, count)
