"""``autocompress worker`` beside ``autocompress search``, by their real command lines."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from autocompress.errors import ConfigError, SourceError, StorageError
from autocompress.pipeline.joining import work
from autocompress.search.places import Ledger
from autocompress.search.records import records
from autocompress.search.storage import close, open_study
from autocompress.search.workers import worker_of
from tests.cli.test_main_job import wait_for
from tests.cli.world import World

pytestmark = pytest.mark.slow
SMALL = (
    "search.trials=8",
    "search.distill_steps=40",
    "search.baselines=false",
    "search.finalists=1",
    "export.formats=[onnxruntime]",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which one process has searched to the end, alone."""
    made = World(tmp_path_factory.mktemp("world"))
    done = made.run("search", "first.yaml", *SMALL)
    assert done.returncode == 0, done.stderr + done.stdout
    return made


def choices(storage: str, name: str) -> list[dict]:
    study = open_study(storage, name, resume=True)
    kept = [dict(record.params) for record in records(study)]
    close(study)
    return kept


def journal(world: World, name: str) -> str:
    return f"journal:{world.folder}/runs/{name}/study.log"


def who_scored(storage: str, name: str) -> set[int]:
    """Return the processes that brought results."""
    study = open_study(storage, name, resume=True)
    ledger = Ledger(study)
    ledger.refresh()
    return {worker_of(trial).pid for _, trial in ledger.results()}


def stop_at_work(world: World, name: str, search: subprocess.Popen) -> None:
    """Let a search stand still while it trains a candidate: whoever joins comes in time, however slow the machine."""
    wait_for(world, name, search, stage="distill", done=5)
    search.send_signal(signal.SIGSTOP)


def read_until(process: subprocess.Popen, text: str) -> None:
    """Read what a process prints up to a line with ``text``."""
    while text not in (line := process.stdout.readline()):
        assert line, process.communicate()


def package(world: World, name: str) -> dict:
    return json.loads((world.folder / f"runs/{name}/best/manifest.json").read_text())


def test_a_search_that_is_helped_delivers_what_it_delivers_alone(world):
    """By one worker that has nothing of the run's folder and is stopped by Ctrl-C, and by one that stays to the end."""
    storage = f"sqlite:///{world.folder}/shared.db"
    search = world.start("search", "first.yaml", "name=helped", f"search.storage={storage}", *SMALL)
    stop_at_work(world, "helped", search)
    (world.folder / "elsewhere").mkdir()
    for needed in ("model", "data"):
        shutil.copytree(world.folder / needed, world.folder / "elsewhere" / needed)
    second = world.start("search", "runs/helped/run.yaml", "--resume")
    passing = world.start("worker", "helped", "--storage", storage, folder=Path("elsewhere"))
    read_until(passing, "distill")
    passing.send_signal(signal.SIGINT)
    _, err = passing.communicate(timeout=300)
    assert passing.returncode == 130 and "Stopped" in err and "Traceback" not in err
    staying = world.start("worker", "runs/helped")
    _, err = second.communicate(timeout=300)
    assert second.returncode == 2 and "is running already" in err
    deadline = time.monotonic() + 300
    while staying.pid not in who_scored(storage, "helped"):
        assert staying.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    search.send_signal(signal.SIGCONT)
    for process, said in ((staying, "Nothing is left to work on: 8 candidates are scored"), (search, "PASS")):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0 and said in out, err
    assert choices(storage, "helped") == choices(journal(world, "first"), "first")
    assert {search.pid, staying.pid} <= who_scored(storage, "helped")
    assert package(world, "helped")["student"] == package(world, "first")["student"]
    assert package(world, "helped")["scores"] == package(world, "first")["scores"]
    study = open_study(storage, "helped", resume=True)
    unfinished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "FAIL"]
    assert unfinished and all("back" in trial.user_attrs for trial in unfinished)
    close(study)


def test_a_worker_that_cannot_help_says_why(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
    with pytest.raises(ConfigError, match="not the folder of a run"):
        work("runs/absent")
    with pytest.raises(StorageError, match="There is no study 'absent'"):
        work("absent", storage=journal(world, "first"))
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "another home"))
    with pytest.raises(SourceError, match="fine-tuned teacher of this run is not on this machine"):
        work("runs/first")
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
    study = open_study(journal(world, "first"), "first", resume=True)
    study.set_user_attr("fingerprint", bound := study.user_attrs["fingerprint"][::-1])
    with pytest.raises(StorageError, match=f"another one here than where it began \\({bound}"):
        work("runs/first")
    study.set_user_attr("fingerprint", bound[::-1])
    begun = open_study(f"journal:{world.folder}/begun.log", "begun", resume=False)
    begun.set_user_attr("fingerprint", "some")
    with pytest.raises(StorageError, match="has not begun to try candidates, and no process goes on with it"):
        work("begun", storage=f"journal:{world.folder}/begun.log")


def test_a_worker_of_a_finished_search_has_nothing_to_do(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
    before = choices(journal(world, "first"), "first")
    assert [dict(record.params) for record in work("runs/first")] == before
    assert choices(journal(world, "first"), "first") == before
