import json
import os
import subprocess
import sys

import pytest
import yaml

from autocompress.pipeline.status import read_status
from autocompress.pipeline.workspace import Workspace
from autocompress.search.attempts import begin
from autocompress.search.records import front
from autocompress.search.storage import open_study
from autocompress.search.study import search
from autocompress.search.workers import working
from tests.search.synthetic import ANCHORS, objective, score


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A run of which only the run file and the study are there."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    run = {"name": "run", "model": {"source": "m"}, "task": {"data": {"source": "d"}}, "budget": {"size": "1 MB"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return Workspace(folder)


def tell(workspace: Workspace, *events: tuple, pid: int | None = None) -> None:
    with workspace.events.open("a") as file:
        for time, stage, done, total in events:
            event = {"time": time, "pid": pid or os.getpid(), "stage": stage, "done": done, "total": total}
            file.write(json.dumps({**event, "note": f"{stage} at {done}"}) + "\n")


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_time_taken_and_left_follow_from_the_events(workspace):
    tell(workspace, (100, "fetch", 0, 2), (103, "fetch", 2, 2), (110, "search", 0, 10), (170, "search", 3, 10))
    fetch, running = read_status(workspace.folder).stages
    assert (fetch.name, fetch.done, fetch.total, fetch.elapsed, fetch.left) == ("fetch", 2, 2, "0:00:03", "0:00:00")
    assert running.elapsed == "0:01:00" and running.note == "search at 3"
    assert running.left == "0:02:20"  # 20 s a step, 7 steps


def test_a_stage_that_a_resumed_run_begins_again_is_timed_from_there(workspace):
    tell(workspace, (0, "search", 0, 10), (90, "search", 9, 10), (1000, "search", 4, 10), (1010, "search", 5, 10))
    (stage,) = read_status(workspace.folder).stages
    assert (stage.elapsed, stage.left) == ("0:00:10", "0:00:50")


def test_a_stage_without_a_finished_step_has_no_time_left(workspace):
    tell(workspace, (0, "search", 0, 10), (90, "search", 0, 10))
    assert read_status(workspace.folder).stages[0].left == ""


def test_a_run_lives_while_its_process_does_and_it_has_no_result(workspace):
    assert not read_status(workspace.folder).alive
    tell(workspace, (0, "search", 0, 1), pid=dead_pid())
    assert not read_status(workspace.folder).alive
    tell(workspace, (0, "search", 0, 1))
    status = read_status(workspace.folder)
    assert status.alive and not status.finished
    workspace.result.write_text("{}")
    status = read_status(workspace.folder)
    assert status.finished and not status.alive


def test_candidates_are_counted_and_the_best_is_named(workspace):
    storage = f"journal:{workspace.folder}/study.log"
    found = search(
        open_study(storage, "run", resume=False), objective(limit_ms=20.0), trials=8, seed=3, anchors=ANCHORS
    )
    status = read_status(workspace.folder)
    states = [record.state for record in found]
    assert "over budget" in states
    assert status.counts == {state: states.count(state) for state in set(states)}
    assert status.best is not None
    assert status.best.score == max(record.score for record in found if record.score is not None)


def test_the_front_failures_by_reason_and_who_is_at_work_are_told(workspace):
    def fragile(plan):
        if plan.steps[0].layers == 6:
            raise RuntimeError("the loss of step 3 is not finite")
        return score(plan)

    study = open_study(f"journal:{workspace.folder}/study.log", "run", resume=False)
    found = search(study, objective(limit_ms=40.0, score=fragile), trials=8, seed=3, anchors=ANCHORS)
    with working() as worker:
        begin(study, len(found), worker, candidate={"plan": [], "cost": {}, "label": ""})
        status = read_status(workspace.folder)
        assert status.at_work == {worker.host: 1}
    assert read_status(workspace.folder).at_work == {}
    assert status.failures == {"RuntimeError": sum(record.state == "failed" for record in found)} != {}
    assert status.fronts == {"": front(found)} and status.fronts[""][-1].score == status.best.score


def test_looking_at_a_run_makes_no_file(workspace):
    before = sorted(workspace.folder.iterdir())
    status = read_status(workspace.folder)
    assert (status.best, status.counts, list(status.stages)) == (None, {}, [])
    assert sorted(workspace.folder.iterdir()) == before
