from dataclasses import dataclass

from benchmarks.kept import Kept, reader


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
