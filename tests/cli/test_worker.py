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


def test_a_search_with_a_worker_beside_it_delivers_what_it_delivers_alone(world):
    search = world.start("search", "first.yaml", "name=helped", *SMALL)
    stop_at_work(world, "helped", search)
    second = world.start("search", "first.yaml", "name=helped", *SMALL, "--resume")
    worker = world.start("worker", "runs/helped")
    deadline = time.monotonic() + 60
    while worker.pid not in who_scored(journal(world, "helped"), "helped"):
        assert worker.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2 and "is running already" in err
    search.send_signal(signal.SIGCONT)
    out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    assert "Nothing is left to work on: 8 candidates are scored" in out
    _, err = search.communicate(timeout=120)
    assert search.returncode == 0, err
    assert choices(journal(world, "helped"), "helped") == choices(journal(world, "first"), "first")
    assert who_scored(journal(world, "helped"), "helped") == {search.pid, worker.pid}
    assert package(world, "helped")["student"] == package(world, "first")["student"]
    assert package(world, "helped")["scores"] == package(world, "first")["scores"]


def test_a_worker_joins_by_name_and_storage_alone_and_ends_cleanly_on_ctrl_c(world):
    """Nothing of the run's folder is there for it; what it had in hand is taken up by the search."""
    storage = f"sqlite:///{world.folder}/shared.db"
    search = world.start("search", "first.yaml", "name=remote", f"search.storage={storage}", *SMALL)
    stop_at_work(world, "remote", search)
    (world.folder / "elsewhere").mkdir()
    for needed in ("model", "data"):
        shutil.copytree(world.folder / needed, world.folder / "elsewhere" / needed)
    worker = world.start("worker", "remote", "--storage", storage, folder=Path("elsewhere"))
    read_until(worker, "distill")
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=60)
    search.send_signal(signal.SIGCONT)
    assert worker.returncode == 130 and "Stopped" in err and "Traceback" not in err
    _, err = search.communicate(timeout=120)
    assert search.returncode == 0, err
    assert choices(storage, "remote") == choices(journal(world, "first"), "first")
    study = open_study(storage, "remote", resume=True)
    lost = [trial for trial in study.get_trials(deepcopy=False) if "reason" not in trial.user_attrs]
    assert all("back" in trial.user_attrs for trial in lost if trial.state.name == "FAIL")
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


def test_a_worker_of_a_finished_search_has_nothing_to_do(world):
    began = time.monotonic()
    done = world.run("worker", "runs/first")
    assert done.returncode == 0, done.stderr
    assert "8 candidates are scored" in done.stdout and time.monotonic() - began < 60
