"""All that a run knows before it searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, starmap
from typing import TypeAlias

from autocompress.compiler.build import Container
from autocompress.compression.hidden import width
from autocompress.compression.recipes.store import OutputStore
from autocompress.config import RunConfig
from autocompress.devices.load import load_profile
from autocompress.devices.paths import cache_folder
from autocompress.devices.profile import DeviceProfile
from autocompress.errors import ConfigError
from autocompress.pipeline.alignment import align_of
from autocompress.pipeline.bench import answers, reach_device
from autocompress.pipeline.calibration import predictor_for
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.feasibility import Feasibility, assess
from autocompress.pipeline.inputs import Inputs, fetch_inputs, settled
from autocompress.pipeline.known import HOST, covers, roofline, widths
from autocompress.pipeline.lessons import Lessons
from autocompress.pipeline.progress import Progress, quiet
from autocompress.pipeline.schooling import schooled
from autocompress.pipeline.start import Start, load_start
from autocompress.pipeline.teacher import Teacher, load_teacher
from autocompress.pipeline.tuning import TVM
from autocompress.predictors.predictor import FittedPredictor, Predictor
from autocompress.predictors.sampling import Variety
from autocompress.shape import ModelShape, WeightGrid
from autocompress.training.device import best_device

Kept: TypeAlias = Callable[[RunConfig], FittedPredictor | None]
"""Returns the predictor that a run began with on the device of a run file, where it was a fitted one."""


@dataclass(frozen=True)
class Setting:
    """All that a run knows before it searches.

    Attributes:
        config: The run file, as it is settled by the model.
        profile: The device.
        teacher: The model that came in.
        start: What students are made of, as it came.
        predictor: What says what a shape costs there.
        feasibility: What the space holds for the budget.
        measurable: Whether artifacts can be measured on the device: it is this machine, or a board that answers.
        fleet: The same run as each further device sees it.
    """

    config: RunConfig
    profile: DeviceProfile
    teacher: Teacher
    start: Start
    predictor: Predictor
    feasibility: Feasibility
    measurable: bool
    fleet: tuple[Setting, ...] = ()

    @property
    def everywhere(self) -> dict[str, Setting]:
        """The run as each of its devices sees it, by the device's name; the first is this one."""
        return {each.config.device_name: each for each in (self, *self.fleet)}

    @property
    def feasible(self) -> bool:
        """Whether some device can take something of the space."""
        return any(each.feasibility.feasible for each in (self, *self.fleet))

    @property
    def on_this_machine(self) -> bool:
        """Whether the device is the machine that searches."""
        return self.profile.name == HOST

    @property
    def target(self) -> Mapping[str, object] | None:
        """What to compile for; ``None`` is this machine."""
        return None if self.on_this_machine else self.profile.tvm_target

    @property
    def container(self) -> Container:
        """What a library is written as; for this machine it is linked, as it may be measured here."""
        return "so" if self.on_this_machine else self.config.export.container

    def students(self, progress: Progress) -> Students:
        """Return the maker of this run's students; another model than the teacher first learns the task."""
        search = self.config.search
        made_of = partial(
            Students,
            self.teacher,
            batch_size=search.batch_size,
            seed=search.seed,
            coverage=search.space.vocabulary_coverage,
            lessons=Lessons(self.config, self.teacher, progress),
            store=OutputStore(cache_folder() / "teacher_outputs", search.teacher_cache),
            device=best_device(search.training_device),
            progress=progress,
        )
        students = made_of(self.start)
        return students if self.config.model.student is None else made_of(schooled(students, self.config, progress))

    def runs_here(self, engine: str) -> bool:
        """Whether an artifact for the device runs on this machine: a library compiled for another one does not."""
        return self.on_this_machine or engine != TVM


def check(config: RunConfig, progress: Progress = quiet) -> Feasibility:
    """Say what is reachable on the device for the budget, of a fleet on the first; nothing is trained or searched.

    Raises:
        DeviceError: The device is a board that was added and has to be calibrated, and it cannot be reached.
    """
    return next(iter(check_fleet(config, progress).values()))


def check_fleet(config: RunConfig, progress: Progress = quiet) -> dict[str, Feasibility]:
    """Say what is reachable on each device of a run, by the device's name; see ``check``."""
    profiles = {name: load_profile(each.device.profile) for name, each in config.everywhere.items()}
    inputs = fetch_inputs(config, progress)
    return {
        name: _assess(each, inputs, _predictor(each, profiles[name], inputs, progress))
        for name, each in settled(config, inputs).everywhere.items()
    }


def prepare(
    config: RunConfig,
    progress: Progress = quiet,
    kept: Kept | None = None,
    *,
    resume: bool = False,
    joining: bool = False,
) -> Setting:
    """Load the teacher, calibrate each device, and say what is reachable; nothing is searched.

    Args:
        config: The run file.
        progress: Told of every stage.
        kept: Returns the predictor that the run began with on the device of a run file, if it did: the device's own may
            have learnt since.
        resume: Whether a calibration of the board that was interrupted goes on.
        joining: Whether a search that was begun elsewhere is helped: nothing is fitted, calibrated or measured then.

    Raises:
        DeviceError: The device is a board that was added, and it cannot be reached.
        SourceError: The teacher was fitted elsewhere, and it is not here.
    """
    seen = config.everywhere.values()
    profiles = [load_profile(each.device.profile) for each in seen]  # First: a typo should not cost a fine-tuning.
    measurable = [not joining and answers(profile) for profile in profiles]
    for each, profile, measured in zip(seen, profiles, measurable, strict=True):
        _check_container(each, measured_as_library=measured and (profile.name == HOST or each.device.engine == TVM))
    best_device(config.search.training_device)  # Nor should it cost a download.
    inputs = fetch_inputs(config, progress)
    config = settled(config, inputs)
    teacher = load_teacher(config, progress, inputs, fit=not joining)
    start = load_start(config, inputs, teacher)

    def seen_by(config: RunConfig, profile: DeviceProfile, measurable: bool) -> Setting:
        predictor: Predictor
        known = None if kept is None else kept(config)
        if known is not None and covers(
            known, _whole(config, inputs), config.task.max_tokens, _variety(config, inputs)
        ):
            predictor = known
        elif joining:
            predictor = roofline(profile, config.device.engine, config.device.threads)
        else:
            predictor = _predictor(config, profile, inputs, progress, resume=resume)
        return Setting(config, profile, teacher, start, predictor, _assess(config, inputs, predictor), measurable)

    first, *others = map(seen_by, config.everywhere.values(), profiles, measurable)
    return replace(first, fleet=tuple(others))


def _check_container(config: RunConfig, *, measured_as_library: bool) -> None:
    """Refuse a library that only the device could link where it is to be measured."""
    if measured_as_library and config.export.container != "so":
        here = "this machine" if config.device.profile == HOST else f"the board {config.device.profile}"
        raise ConfigError(
            f"export.container is {config.export.container}, and the device is {here}.",
            right=f"Libraries for {here} are linked, to be measured.",
            next_step="Leave export.container out, or set device.profile to a device that is not measured.",
        )


def _predictor(
    config: RunConfig, profile: DeviceProfile, inputs: Inputs, progress: Progress, *, resume: bool = False
) -> Predictor:
    engine = config.device.engine
    with reach_device(profile, engines=(engine,)) as bench:
        return predictor_for(
            profile,
            _whole(config, inputs),
            engine=engine,
            threads=config.device.threads,
            tokens=config.task.max_tokens,
            samples=config.calibrate.samples,
            variety=_variety(config, inputs),
            bench=bench,
            resume=resume and bench is not None,
            progress=progress,
        )


def _whole(config: RunConfig, inputs: Inputs) -> ModelShape:
    """Return the largest student."""
    shape = inputs.start.shape
    return replace(shape, positions=config.task.max_tokens) if config.search.space.positions == "task" else shape


def _variety(config: RunConfig, inputs: Inputs) -> Variety:
    """Return what a predictor must know for the space of a run."""
    shape, teacher, space = _whole(config, inputs), inputs.teacher.shape, config.search.space
    align = align_of(config, shape)
    return Variety(
        align=align,
        bits=widths((*space.attention_bits, *space.ffn_bits, *space.embedding_bits)),
        hidden=tuple(sorted({width(shape, share, align) for share in space.hidden_keep})),
        tokens_keep=space.tokens_keep,
        max_tokens=config.task.max_tokens,
        activations=space.activations,
        head_bits=space.head_bits,
        grids=tuple(starmap(WeightGrid, product(space.weight_group, space.zero_points))),
        beside=() if shape == teacher else (teacher,),
    )


def _assess(config: RunConfig, inputs: Inputs, predictor: Predictor) -> Feasibility:
    shape, budget, tokens = inputs.start.shape, config.budget.to_budget(), config.task.max_tokens
    return assess(shape, space_of(config, shape), budget, predictor, tokens, teacher=inputs.teacher.shape)
