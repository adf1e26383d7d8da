"""All that a run knows before it searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autocompress.config import RunConfig
from autocompress.devices.load import load_profile
from autocompress.devices.profile import DeviceProfile
from autocompress.pipeline.calibration import HOST, covers, predictor_for
from autocompress.pipeline.candidates import space_of
from autocompress.pipeline.feasibility import Feasibility, assess
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.teacher import Teacher, load_teacher, untrained_shape
from autocompress.predictors.predictor import FittedPredictor, Predictor
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class Setting:
    """All that a run knows before it searches.

    Attributes:
        config: The run file.
        profile: The device.
        teacher: The model that came in.
        predictor: What says what a shape costs there.
        feasibility: What the space holds for the budget.
    """

    config: RunConfig
    profile: DeviceProfile
    teacher: Teacher
    predictor: Predictor
    feasibility: Feasibility

    @property
    def on_this_machine(self) -> bool:
        """Whether artifacts can be measured."""
        return self.profile.name == HOST

    @property
    def target(self) -> Mapping[str, object] | None:
        """What to compile for; ``None`` is this machine."""
        return None if self.on_this_machine else self.profile.tvm_target

    def runs_here(self, engine: str) -> bool:
        """Whether an artifact for the device runs on this machine: a library compiled for another one does not."""
        return self.on_this_machine or engine != "tvm"


def check(config: RunConfig, progress: Progress = quiet) -> Feasibility:
    """Say what is reachable on the device for the budget; nothing is trained or searched."""
    return _foresee(config, untrained_shape(config, progress), progress)[1]


def prepare(config: RunConfig, progress: Progress = quiet, kept: FittedPredictor | None = None) -> Setting:
    """Load the teacher, calibrate the device, and say what is reachable; nothing is searched.

    Args:
        config: The run file.
        progress: Told of every stage.
        kept: The predictor that the run began with, if it did: the device's own may have learnt since.
    """
    profile = load_profile(config.device.profile)  # First: a typo should not cost a fine-tuning.
    teacher = load_teacher(config, progress)
    predictor, feasibility = _foresee(config, teacher.shape, progress, kept)
    return Setting(config, profile, teacher, predictor, feasibility)


def _foresee(
    config: RunConfig, shape: ModelShape, progress: Progress, kept: FittedPredictor | None = None
) -> tuple[Predictor, Feasibility]:
    budget, tokens, align = config.budget.to_budget(), config.task.max_tokens, config.search.space.align
    if kept is not None and covers(kept, shape, tokens, align):
        return kept, assess(shape, space_of(config, shape), budget, kept, tokens)
    predictor = predictor_for(
        load_profile(config.device.profile),
        shape,
        engine=config.device.engine,
        threads=config.device.threads,
        tokens=tokens,
        samples=config.calibrate.samples,
        align=align,
        progress=progress,
    )
    return predictor, assess(shape, space_of(config, shape), budget, predictor, tokens)
