import argparse
from dataclasses import dataclass

import pytest

from benchmarks.kept import Kept, add_options, kept_of, reader


@dataclass(frozen=True)
class Row:
    name: str
    value: float


@dataclass(frozen=True)
class Found:
    setting: Row
    right: float


def opened(path):
    return Kept(path, lambda line: Row(**line), lambda row: row.name)


def test_what_was_added_is_known_to_the_next_run_and_not_written_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    first = opened(path)
    assert first.get("a") is None
    assert first.add(Row("a", 1.5)) == Row("a", 1.5)
    second = opened(path)
    assert second.get("a") == Row("a", 1.5)
    second.add(second.get("a"))
    second.add(Row("b", 2.0))
    assert path.read_text().count("\n") == 2
    assert opened(path).get("b") == Row("b", 2.0)


def test_without_a_file_results_are_known_until_the_end():
    kept = opened(None)
    kept.add(Row("a", 1.0))
    assert kept.get("a") == Row("a", 1.0)
    assert opened(None).get("a") is None


def test_results_that_name_their_setting_are_read_back(tmp_path):
    def opened():
        return Kept(tmp_path / "found", reader(Found, Row), lambda found: found.setting)

    opened().add(Found(Row("a", 1.0), 0.5))
    assert opened().get(Row("a", 1.0)) == Found(Row("a", 1.0), 0.5)


def arguments(*given):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(given)


def test_what_is_known_is_not_made_again_and_keys_keep_their_order(tmp_path):
    made = []

    def make(name):
        made.append(name)
        return Row(name, 1.0)

    def opened():
        return kept_of(arguments("--records", str(tmp_path / "rows")), lambda line: Row(**line), lambda row: row.name)

    opened().made(["b"], make)
    assert [row.name for row in opened().made(["a", "b", "c"], make)] == ["a", "b", "c"]
    assert made == ["b", "a", "c"]
    assert [row.name for row in opened().found(["c", "d", "a"])] == ["c", "a"]


@pytest.mark.parametrize(("minutes", "late"), [("0", True), ("60", False)])
def test_nothing_new_begins_when_time_is_over(minutes, late):
    kept = kept_of(arguments("--minutes", minutes), lambda line: Row(**line), lambda row: row.name)
    kept.add(Row("a", 1.0))
    assert kept.late == late
    assert [row.name for row in kept.made(["a", "b"], lambda name: Row(name, 2.0))] == (["a"] if late else ["a", "b"])
