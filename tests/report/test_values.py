from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.cost import Estimate
from autocompress.errors import StorageError
from autocompress.report.values import GoalRow, LimitRow, Pair, RunReport

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Draw any value of a type that a report is made of."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: anything(hints[field.name]) for field in fields(hint)})
    if isinstance(hint, UnionType):
        return st.one_of(*map(anything, get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(anything(get_args(hint)[0]), max_size=2).map(tuple)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    return FINITE if hint is float else st.from_type(hint)


@settings(max_examples=50)
@given(anything(RunReport))
def test_a_report_survives_json(report: RunReport) -> None:
    assert RunReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_realistic_report_survives_json(report: RunReport) -> None:
    assert RunReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_from_before_devices_were_emulated_is_read(report: RunReport) -> None:
    values = report.to_dict()
    assert values.pop("emulated") == ""
    assert RunReport.from_dict(values) == report


def test_a_report_of_before_there_were_timelines_is_read(disturbed_report: RunReport) -> None:
    data = json.loads(json.dumps(disturbed_report.to_dict()))
    for name in ("timeline", "episodes", "failed", "emulator"):
        del data["predictor"][name]
    health = replace(disturbed_report.predictor, timeline=(), episodes=(), failed="", emulator="")
    assert RunReport.from_dict(data) == replace(disturbed_report, predictor=health)


@pytest.mark.parametrize("change", [{"goal": {"metric": "accuracy"}}, {"surprise": 1}, {"predictor": [1, 2]}])
def test_a_report_of_other_fields_is_refused_in_three_parts(report: RunReport, change: dict[str, object]) -> None:
    with pytest.raises(StorageError) as caught:
        RunReport.from_dict({**report.to_dict(), **change})
    assert "fields" in caught.value.right
    assert "autocompress report" in caught.value.next_step


@pytest.mark.parametrize(
    ("budget", "measured", "passed"),
    [(10.0, 10.0, True), (10.0, 10.001, False), (None, 10.0, None), (10.0, None, None)],
)
def test_a_limit_passes_only_on_a_measurement(
    budget: float | None, measured: float | None, passed: bool | None
) -> None:
    assert LimitRow("latency_p50_ms", budget, Estimate(1.0, 1.0, 1.0), measured).passed is passed


@pytest.mark.parametrize(("student", "passed"), [(0.94, True), (0.93, True), (0.9299, False), (0.97, True)])
def test_the_goal_is_held_in_points_and_its_edge_is_allowed(student: float, passed: bool) -> None:
    goal = GoalRow("accuracy", 0.95, student, 0.005, 1000, max_drop_points=2.0)
    assert goal.drop_points == pytest.approx(95 - 100 * student)
    assert goal.passed is passed


@pytest.mark.parametrize(("measured", "covered"), [(9.0, True), (11.0, True), (8.99, False), (11.01, False)])
def test_an_interval_holds_both_of_its_ends(measured: float, covered: bool) -> None:
    assert Pair("one", Estimate(10.0, 9.0, 11.0), measured).covered is covered


def test_the_teacher_and_the_student_are_found_by_their_role(report: RunReport) -> None:
    teacher, student = report.only("teacher"), report.only("student")
    assert teacher is not None
    assert student is not None
    assert (teacher.role, student.role) == ("teacher", "student")
    assert replace(report, baselines=()).only("teacher") is None
