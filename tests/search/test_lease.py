"""One process makes the finalists."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from autocompress.errors import StorageError
from autocompress.search import lease as lease_module
from autocompress.search import notes, workers
from autocompress.search.attempts import begin, retire
from autocompress.search.lease import is_searched, only_search, refuse_second
from autocompress.search.records import records
from autocompress.search.storage import open_study
from autocompress.search.workers import Worker

ROOT = Path(__file__).parents[2]
HOLDS = (
    "import sys, time\n"
    "from autocompress.search.lease import only_search\n"
    "from autocompress.search.storage import open_study\n"
    "with only_search(open_study(sys.argv[1], 'run', resume=True)):\n"
    "    print('holds', flush=True)\n"
    "    time.sleep(600)"
)


@pytest.fixture
def study(tmp_path):
    return open_study(f"journal:{tmp_path}/study.log", "run", resume=False)


def searches(study: optuna.Study) -> optuna.Study:
    return optuna.load_study(study_name="run (searches)", storage=study._storage)


def test_the_second_is_refused_until_the_first_has_ended_and_no_candidate_shows_it(study):
    refuse_second(study)
    with only_search(study) as lease:
        lease.check()
        assert is_searched(study)
        with pytest.raises(StorageError, match="is running already"):
            refuse_second(study)
        with pytest.raises(StorageError, match="autocompress worker"), only_search(study):
            pass
        lease.check()
    assert not is_searched(study)
    with only_search(study) as lease:
        lease.check()
    assert study.get_trials() == [] and records(study) == []


def test_after_kill_minus_nine_the_next_need_not_wait(study, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, f"journal:{tmp_path}/study.log"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holds\n"
    with pytest.raises(StorageError, match=f"process {process.pid} "), only_search(study):
        pass
    process.kill()
    process.communicate()
    waited = []
    with only_search(study, waited.append):
        assert waited == []


@pytest.fixture
def elsewhere(study, monkeypatch):
    """A search on another machine."""
    monkeypatch.setattr(lease_module, "LOOK_S", 0.01)
    with only_search(study):
        pass
    return begin(searches(study), 0, Worker("mark", "elsewhere boot pid", 1, 0.0))


def test_one_on_another_machine_is_heard_before_the_next_is_refused(study, elsewhere):
    with (
        pytest.raises(StorageError, match="process 1 on elsewhere"),
        only_search(study, lambda host: elsewhere.note(beat=1)),
    ):
        pass


def test_one_on_another_machine_of_which_nothing_is_heard_is_followed(study, elsewhere, monkeypatch):
    monkeypatch.setattr(workers, "GRACE_S", 0.1)
    hosts = []
    with only_search(study, hosts.append) as lease:
        lease.check()
    assert set(hosts) == {"elsewhere"}


def test_one_that_was_taken_for_lost_makes_no_finalists(study):
    with only_search(study) as lease:
        (holder,) = searches(study).get_trials()
        retire(searches(study), holder)
        with pytest.raises(StorageError, match="Another process goes on"):
            lease.check()


def test_a_note_is_read_whole_or_not_at_all(study):
    value = {"text": "ä" * 3 * notes.PART_CHARACTERS, "numbers": [1, 1.5, None, True]}
    assert notes.read(study, "long") is None
    notes.write(study, "long", value)
    assert notes.read(study, "long") == value
    assert max(len(str(part)) for part in study.user_attrs.values()) <= notes.PART_CHARACTERS
    study.set_user_attr("long:1", "of another one")
    assert notes.read(study, "long") is None
