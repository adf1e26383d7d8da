from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocompress.devices.validation import did_you_mean, explain, read_mapping
from autocompress.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    trials: int = Field(default=1, gt=0, description="How many.")
    width: int = Field(description="How wide.")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    search: Inner
    rows: tuple[Inner, ...] = ()
    kind: str = Field(default="a", pattern="^[ab]$", description="Either a or b.")


def explained(data: object) -> ConfigError:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return explain(caught.value, Outer, where="run.yaml", next_step="Correct it.")


@pytest.mark.parametrize(
    ("data", "wrong", "right"),
    [
        ({"search": {"width": 1, "trails": 2}}, "search.trails is not a known key", "Did you mean search.trials?"),
        ({"search": {"width": 1}, "trials": 2}, "trials is not a known key", "search.trials or rows.trials?"),
        ({"search": {"width": 1}, "serach": {}}, "serach is not a known key", "Did you mean search?"),
        ({"search": {"width": 1, "q": 0}}, "search.q is not a known key", "Keys of search are trials, width."),
        ({"search": {}}, "search.width is missing", "How wide."),
        ({"search": {"width": 1, "trials": 0}}, "search.trials is 0", "greater than 0"),
        ({"search": None}, "search is empty", "search should hold keys with values (trials, width)."),
        ({"search": {"width": 1}, "rows": [{"width": "x"}]}, "rows.0.width is 'x'", "valid integer"),
        ({"search": {"width": 1}, "kind": "c"}, "kind is 'c'", "Either a or b."),
    ],
)
def test_a_problem_names_the_full_key_and_what_is_right(data: object, wrong: str, right: str) -> None:
    error = explained(data)
    assert error.wrong == f"run.yaml: {wrong}."
    assert right in error.right
    assert "pydantic" not in str(error)


def test_all_problems_are_told_at_once() -> None:
    error = explained({"search": {"trails": 1}, "kind": "c"})
    assert error.wrong.startswith("run.yaml: 3 problems: ")
    assert all(key in error.wrong for key in ("search.trails", "search.width", "kind"))


def test_a_file_that_is_not_there_is_answered_with_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        read_mapping(tmp_path / "quikstart.yaml")
    assert caught.value.right == f"Did you mean {tmp_path / 'quickstart.yaml'}?"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: [1", "not valid YAML: line 1"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is written twice"),
        ("b: {a: 1, a: 2}", "'a' is written twice"),
        ("- 1", "holds list, not keys with values"),
        ("1: 2", "not keys with values"),
    ],
)
def test_yaml_that_is_not_unique_keys_with_values_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    assert wrong in caught.value.wrong
    assert str(path) in caught.value.wrong


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_mapping(path)


def test_an_empty_file_has_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing yet\n")
    assert read_mapping(path) == {}


def test_case_does_not_hide_what_was_meant() -> None:
    assert did_you_mean("Raspberry-Pi4", ["host", "raspberry-pi-4"]) == "raspberry-pi-4"
    assert did_you_mean("zzz", ["host"]) is None
