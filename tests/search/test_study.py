from pathlib import Path

import pytest

from autocompress.errors import AutoCompressError, ConfigError, StorageError
from autocompress.search.records import finalists, front, nearest
from autocompress.search.storage import bind, open_study, storage_errors
from autocompress.search.study import search
from tests.search.synthetic import ANCHORS, objective, reshape, score


def storage_of(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder}/study.db" if kind == "sqlite" else f"journal:{folder}/study.log"


def run(folder: Path, *, trials=20, seed=3, resume=False, **options):
    study = open_study(storage_of("journal", folder), "run", resume=resume)
    return search(study, objective(**options), trials=trials, seed=seed, anchors=ANCHORS)


def choices(found) -> list[tuple]:
    return [(record.params["layers"], record.params["ffn"]) for record in found]


def test_a_candidate_over_budget_is_never_scored_nor_kept_unless_it_is_an_anchor(tmp_path):
    scored = []

    def watch(plan):
        scored.append(reshape(plan))
        return score(plan)

    found = run(tmp_path, limit_ms=20.0, score=watch)
    over = [record for record in found if record.state == "over budget"]
    assert choices(over) == [(anchor["layers"], anchor["ffn"]) for anchor in ANCHORS[:2]]
    assert all(max(record.violations.values()) > 0 and record.score is None for record in over)
    for shape in scored:
        assert 1.1 * sum(1.0 + layer.ffn / 64 for layer in shape.layers) <= 20.0


def test_the_anchors_come_first_and_no_plan_is_scored_twice(tmp_path):
    scored = []

    def watch(plan):
        scored.append(plan)
        return score(plan)

    found = run(tmp_path, score=watch)
    assert choices(found)[:3] == [(anchor["layers"], anchor["ffn"]) for anchor in ANCHORS]
    assert len(scored) == len(set(scored)) == 20


def test_the_same_seed_gives_the_same_candidates_and_another_seed_others(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    first, again, other = (run(folder, seed=seed) for folder, seed in zip(folders, (3, 3, 4), strict=True))
    assert choices(first) == choices(again)
    assert choices(first) != choices(other)


def test_a_resumed_search_goes_on_with_the_same_candidates(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", trials=7)
    assert choices(run(tmp_path / "parts", resume=True)) == choices(whole)


def test_a_candidate_that_fails_is_counted_with_its_reason_and_the_search_goes_on(tmp_path):
    def fragile(plan):
        if plan.steps[0].layers == 6:
            raise RuntimeError("the loss is not finite")
        return score(plan)

    found = run(tmp_path, score=fragile)
    failed = [record for record in found if record.state == "failed"]
    assert failed and all("loss is not finite" in record.reason for record in failed)
    assert len([record for record in found if record.state == "scored"]) >= 20


def test_a_programming_error_is_not_swallowed(tmp_path):
    def broken(plan):
        raise AttributeError("a bug")

    with pytest.raises(AttributeError):
        run(tmp_path, score=broken)


def test_an_impossible_budget_ends_and_names_the_nearest_candidate(tmp_path):
    found = run(tmp_path, trials=2, limit_ms=0.5)
    assert all(record.state == "over budget" for record in found)
    best = nearest(found)
    assert best is not None and best.params == {"layers": 1, "ffn": 32}
    assert best.violations["latency_p50_ms"] == pytest.approx(1.1 * 1.5 / 0.5 - 1)


def test_the_front_rises_with_latency_and_the_finalists_are_the_best(tmp_path):
    found = run(tmp_path)
    line = front(found)
    assert [record.latency_ms for record in line] == sorted(record.latency_ms for record in line)
    assert [record.score for record in line] == sorted(record.score for record in line)
    top = finalists(found, 3)
    scores = sorted({str(record.plan): record.score for record in found if record.score is not None}.values())[::-1]
    assert [record.score for record in top] == scores[:3]
    assert len({str(record.plan) for record in top}) == 3


def test_out_of_time_stops_before_the_next_candidate(tmp_path):
    study = open_study(storage_of("journal", tmp_path), "run", resume=False)
    answers = iter([False, False, True])
    assert len(search(study, objective(), trials=9, seed=0, out_of_time=lambda: next(answers))) == 2


def test_a_run_is_not_overwritten_nor_resumed_from_nothing_nor_mixed(tmp_path):
    storage = storage_of("journal", tmp_path)
    with pytest.raises(StorageError, match="no study"):
        open_study(storage, "run", resume=True)
    open_study(storage, "run", resume=False)
    study = open_study(storage, "run", resume=False)  # nothing was tried yet: nothing can be overwritten
    bind(study, "f")
    search(study, objective(), trials=1, seed=0)
    with pytest.raises(StorageError, match="--resume"):
        open_study(storage, "run", resume=False)
    bind(open_study(storage, "run", resume=True), "f")
    with pytest.raises(StorageError, match="another configuration"):
        bind(study, "g")
    with pytest.raises(ConfigError, match=r"search\.storage"):
        open_study("study.db", "run", resume=False)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_corrupted_study_is_refused_and_left_as_it_is(tmp_path, kind):
    storage = storage_of(kind, tmp_path)
    search(open_study(storage, "run", resume=False), objective(), trials=5, seed=0)
    (path,) = (path for path in tmp_path.iterdir() if path.name.startswith("study."))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[200:middle] = b"\xff" * (middle - 200)
    path.write_bytes(content)
    with pytest.raises(AutoCompressError) as caught:
        open_study(storage, "run", resume=True)
    assert caught.value.next_step
    assert path.read_bytes() == content


def test_a_full_disk_is_named():
    with pytest.raises(StorageError, match="full"), storage_errors("sqlite:///x"):
        raise OSError(28, "No space left on device")


def test_a_record_keeps_the_standard_error_of_its_score(tmp_path):
    found = run(tmp_path)
    assert {record.standard_error for record in found if record.score is not None} == {0.01}
