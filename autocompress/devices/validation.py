"""Turn YAML files and pydantic's complaints into one error in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from autocompress.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Section(BaseModel):
    """Keys with values that do not change; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MisfitError(ValueError):
    """Values that are right alone and wrong together, for validators of whole sections.

    Args:
        wrong: What is wrong, with full dotted keys, without a full stop.
        right: What would be right, a sentence.
    """

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(f"{wrong}. {right}")
        self.wrong, self.right = wrong, right


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} is written twice", problem_mark=key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return dict(super().construct_mapping(node, deep))


def read_mapping(path: Path) -> dict[str, object]:
    """Read a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        near = get_close_matches(path.name, _yaml_names(path.parent), n=1)
        raise ConfigError(
            f"{path} cannot be read: {reason}.",
            right=f"Did you mean {path.parent / near[0]}?" if near else "Name a readable YAML file.",
            next_step="Correct the path and try again.",
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path} is not valid YAML: {_yaml_problem(error)}.",
            right="Write each line as 'key: value', nested keys indented by spaces, each key once.",
            next_step="Correct the file and try again.",
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(
            f"{path} holds {type(data).__name__}, not keys with values.",
            right="Write each line as 'key: value'.",
            next_step="Correct the file and try again.",
        )
    return data


def _causes(found: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Leave out that a list is too short where one of its items is wrong: that item was not counted."""
    for details in found:
        place = details["loc"]
        inside = any(other["loc"][: len(place)] == place for other in found if len(other["loc"]) > len(place))
        if details["type"] != "too_short" or not inside:
            yield details


def explain(error: ValidationError, model: type[BaseModel], *, where: str, next_step: str) -> ConfigError:
    """Say all that ``error`` found in plain words, with the full dotted key of each problem.

    Args:
        error: What pydantic raised.
        model: The model that was validated, to look up which keys exist.
        where: Which file, and which overrides.
        next_step: What the user should do.
    """
    problems = [_problem(details, model) for details in _causes(error.errors(include_url=False))]
    wrongs = dict.fromkeys(wrong for wrong, _ in problems)
    rights = dict.fromkeys(right for _, right in problems)
    count = "" if len(wrongs) == 1 else f"{len(wrongs)} problems: "
    return ConfigError(f"{where}: {count}{'; '.join(wrongs)}.", right=" ".join(rights), next_step=next_step)


def did_you_mean(name: str, choices: Sequence[str]) -> str | None:
    """Return the choice that ``name`` most resembles, if any does."""
    near = get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1)
    return next((choice for choice in choices if choice.lower() == near[0]), None) if near else None


def _problem(details: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    location = details["loc"]
    key = ".".join(str(part) for part in location)
    shown = f"{key} is {'empty' if details['input'] is None else repr(details['input'])}"
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, MisfitError):
        return cause.wrong, cause.right
    match details["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key", _right_key(location, model)
        case "missing":
            return f"{key} is missing", f"{key} is needed: {_description(location, model)}"
        case "value_error" if isinstance(details["input"], dict):
            return f"{key} does not fit", f"{key}: {cause}"
        case "value_error":
            return shown, f"{key}: {cause}"
        case "string_pattern_mismatch":
            return shown, f"{key}: {_description(location, model)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            nested = _model_at(location, model)
            keys = f" ({', '.join(nested.model_fields)})" if nested else ""
            return shown, f"{key} should hold keys with values{keys}."
        case _:
            return shown, f"{key}: {details['msg'].replace('Input should be', 'it should be')}."


def _right_key(location: Sequence[int | str], model: type[BaseModel]) -> str:
    *parents, last = location
    section = _model_at(parents, model) or model
    prefix = "".join(f"{part}." for part in parents)
    everywhere: dict[str, list[str]] = {}
    for dotted in dotted_keys(model):
        everywhere.setdefault(dotted.rsplit(".", 1)[-1], []).append(dotted)
    close, far = did_you_mean(str(last), list(section.model_fields)), did_you_mean(str(last), list(everywhere))
    meant = everywhere.get(str(last)) or ([prefix + close] if close else everywhere[far] if far else [])
    if meant:
        return f"Did you mean {' or '.join(meant)}?"
    return f"Keys of {prefix.rstrip('.') or 'the file'} are {', '.join(section.model_fields)}."


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the full dotted key of every field of ``model`` and of the models inside it."""
    for name, info in model.model_fields.items():
        yield prefix + name
        nested = _nested_model(info.annotation)
        if nested:
            yield from dotted_keys(nested, f"{prefix}{name}.")


def _model_at(location: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        current = _nested_model(info.annotation) if info else None
    return current


def _nested_model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_nested_model, get_args(annotation))), None)


def _description(location: Sequence[int | str], model: type[BaseModel]) -> str:
    *parents, last = location
    section = _model_at(parents, model)
    info = section.model_fields.get(str(last)) if section else None
    return (info.description if info else None) or "see the documentation."


def _yaml_names(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + str(getattr(error, "problem", None) or error)
